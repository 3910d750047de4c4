"""`latentloom serve` as a program: started, stopped, killed, and started again."""

import json
import signal
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from graph.workflow import read
from nodes.engine import Engine, usual_folders
from nodes.saving import SavedFiles
from tests.programs import COMMAND, ROOT, program
from tests.workers import use
from workflows.editor.editor_form import to_editor


def test_the_server_process_never_loads_torch(tmp_path: Path):
    with program(tmp_path) as server:
        job = {"1": use("Mint", number=7), "2": use("Announce", token=["1", 0])}
        assert server.ask("/prompt?wait=100", {"prompt": job})["outputs"]["2"]["text"] == ["7"]
        assert "torch" in json.dumps(server.ask("/system_stats"))
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "sqlite" in loaded and "torch" not in loaded


def test_a_server_that_is_told_to_stop_hands_back_and_ends(tmp_path: Path):
    workflow = {"1": use("Wait"), "2": use("Show", yarn=["1", 0])}
    with program(tmp_path) as server:
        job_id = server.ask("/prompt", {"prompt": workflow})["prompt_id"]
        while server.ask(f"/jobs/{job_id}")["status"] != "in_progress":
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    with program(tmp_path) as server:
        assert server.ask(f"/jobs/{job_id}")["status"] in ("pending", "in_progress")
        server.ask(f"/jobs/{job_id}/cancel", {})


def test_a_server_that_is_told_twice_to_stop_ends_at_once_and_loses_nothing(tmp_path: Path):
    door = tmp_path / "door"
    stubborn = {
        "1": use("Mint"),
        "2": use("Pass", token=["1", 0], door=str(door)),
        "3": use("Announce", token=["2", 0]),
    }
    with program(tmp_path) as server:
        running = server.ask("/prompt", {"prompt": stubborn})["prompt_id"]
        waiting = server.ask("/prompt", {"prompt": {"1": use("Mint", number=7), "2": use("Announce", token=["1", 0])}})
        while not door.with_name("door.reached").exists():
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 130
    with program(tmp_path) as server:
        assert server.ask(f"/jobs/{running}")["status"] in ("pending", "in_progress")
        server.ask(f"/jobs/{running}/cancel", {})
        while (job := server.ask(f"/jobs/{waiting['prompt_id']}"))["status"] != "completed":
            time.sleep(0.02)
        assert job["outputs"]["2"]["text"] == ["7"]


def test_every_door_gives_the_same_picture(tmp_path: Path):
    """The command line, Python, and the server by either format; the editor's page is in `test_frontend.py`."""
    served, ran = tmp_path / "served", tmp_path / "ran"
    document = json.loads((ROOT / "workflows" / "text_to_image.json").read_text())
    (sampler,) = (node for node in document.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["steps"] = 6
    (tmp_path / "workflow.json").write_text(json.dumps(document))

    with program(served, "--cache-none") as server:
        editors = to_editor(read(document), server.ask("/object_info"))
        answers = [server.ask("/prompt?wait=600", {"prompt": document}), server.ask("/prompt?wait=600", editors)]
        pictures: list[bytes] = []
        for answer in answers:
            ((file,),) = [output["images"] for output in answer["outputs"].values()]
            query = f"filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}"
            with urlopen(f"{server.url}/view?{query}", timeout=60) as body, Image.open(body) as picture:
                pictures.append(picture.tobytes())
                assert json.loads(picture.info["prompt"]) == document

    command = [*COMMAND, "--data", str(ran), "run", str(tmp_path / "workflow.json")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    with Image.open(said.stdout.strip()) as picture:
        pictures.append(picture.tobytes())

    engine = Engine(usual_folders(tmp_path / "python"))
    ((saved,),) = [ui.paths for ui in engine.run(document).checked().shown.values() if isinstance(ui, SavedFiles)]
    with Image.open(saved) as picture:
        pictures.append(picture.tobytes())
    assert pictures == [pictures[0]] * 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lowvarm",), "no option '--lowvarm'"),
        (("--workers", "0"), "--workers takes a number"),
        (("--devices", "tpu"), "no device 'tpu'"),
        (("--tls-keyfile", __file__), "go together"),
        (("--api-key", "short"), "an API key has"),
        (("--database", "mysql://somewhere/jobs"), "use postgresql+asyncpg"),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_sentence(tmp_path: Path, options: tuple[str, ...], said: str):
    command = [*COMMAND, "--data", str(tmp_path), "serve", "--port", "0", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode != 0 and said in ended.stderr and "Traceback" not in ended.stderr


def test_other_machines_are_let_in_only_with_a_key(tmp_path: Path):
    command = [*COMMAND, "--data", str(tmp_path)]
    refused = subprocess.run([*command, "serve", "--port", "0", "--listen"], cwd=ROOT, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "latentloom keys add NAME" in refused.stderr and "--insecure-no-auth" in refused.stderr
    made = subprocess.run([*command, "keys", "add", "ann"], cwd=ROOT, capture_output=True, text=True, check=True)
    with program(tmp_path, "--listen", "0.0.0.0") as server:
        request = Request(f"{server.url}/features", headers={"X-API-Key": made.stdout.strip()})
        with pytest.raises(HTTPError, match="401"):
            server.ask("/features")
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer)
        subprocess.run([*command, "keys", "revoke", "ann"], cwd=ROOT, check=True)
        with pytest.raises(HTTPError, match="401"):
            urlopen(request, timeout=60)


def test_flags_of_the_incumbent_are_passed_over_with_one_warning(tmp_path: Path):
    flags = ("--lowvram", "--reserve-vram", "2", "--fast", "fp16_accumulation", "autotune", "--multi-user")
    with program(tmp_path, *flags) as server:
        assert server.ask("/prompt")["exec_info"]["queue_remaining"] == 0
