import json
import signal
from pathlib import Path

import pytest

from nodes.picture_files import png_texts
from tests.commands import latentloom, opened, process, saved
from workflows.examples import build

QUICK = ("--set", "KSampler.steps=2")


def test_a_prompt_becomes_a_picture_that_carries_its_workflow(tmp_path: Path):
    said = latentloom("run", "text_to_image", *QUICK, "--output", tmp_path / "out", data=tmp_path)
    assert said.code == 0
    (picture,) = said.files
    assert opened(picture).size == (128, 128)
    assert json.loads(png_texts(picture.read_bytes())["prompt"])["5"]["inputs"]["steps"] == 2


def test_the_same_run_gives_the_same_bytes(tmp_path: Path):
    first, second = (
        latentloom("run", "text_to_image", *QUICK, "--output", tmp_path / name, data=tmp_path).files[0]
        for name in ("first", "second")
    )
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_another_picture(tmp_path: Path):
    first, second = (
        latentloom("run", "text_to_image", *QUICK, "--seed", seed, data=tmp_path).files[0] for seed in ("1", "2")
    )
    assert opened(first).tobytes() != opened(second).tobytes()


def test_a_picture_runs_again_from_its_png(tmp_path: Path):
    first = latentloom("run", "text_to_image", *QUICK, data=tmp_path).files[0]
    again = latentloom("run", first, data=tmp_path).files[0]
    assert again != first and again.read_bytes() == first.read_bytes()


def test_a_workflow_is_read_from_standard_input(tmp_path: Path):
    document = json.dumps(build("text_to_image").document())
    said = latentloom("run", "-", *QUICK, data=tmp_path, given=document)
    assert said.code == 0 and len(said.files) == 1


def test_json_prints_one_event_per_line(tmp_path: Path):
    said = latentloom("run", "text_to_image", *QUICK, "--json", data=tmp_path)
    names = [event["event"] for event in said.events]
    assert names[0] == "run_started" and names[-1] == "run_finished"
    progress = [(event["value"], event["max"]) for event in said.events if event["event"] == "node_progressed"]
    assert (1, 2) in progress and (2, 2) in progress
    assert [file for event in said.events for file in event.get("files", [])]


@pytest.mark.parametrize("name", ["Prompt", "2"])
def test_set_finds_a_node_by_title_or_id(tmp_path: Path, name: str):
    said = latentloom("run", "text_to_image", *QUICK, "--set", f"{name}.text=a blue boat", data=tmp_path)
    prompt = json.loads(png_texts(said.files[0].read_bytes())["prompt"])
    assert said.code == 0
    assert [node["inputs"]["text"] for node in prompt.values() if node["_meta"]["title"] == "Prompt"] == ["a blue boat"]


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("CLIPTextEncode.text=x", "could be any of"),
        ("Promt.text=x", "did you mean 'Prompt'?"),
        ("KSampler.step=3", "did you mean 'steps'?"),
        ("KSampler.model=x", "takes a link"),
        ("KSampler", "NODE.INPUT=VALUE"),
        ("KSampler.steps=0", "at least 1"),
        ("KSampler.sampler_name=eular", "did you mean 'euler'?"),
    ],
)
def test_a_wrong_override_is_explained(tmp_path: Path, override: str, answer: str):
    said = latentloom("run", "text_to_image", "--set", override, data=tmp_path)
    assert said.code == 2 and answer in said.err


def test_own_nodes_are_a_file_away(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from graph.node import node\nfrom nodes.values import Image\n\n"
        '@node("Darken")\n'
        "def darken(image: Image, by: float = 0.5) -> Image:\n"
        "    return Image(image.pixels * (1 - by))\n"
    )
    document = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "house.png"}},
        "2": {"class_type": "Darken", "inputs": {"image": ["1", 0], "by": 1.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
    }
    said = latentloom("--nodes", tmp_path / "mine.py", "run", saved(tmp_path, document), data=tmp_path)
    assert said.code == 0
    assert opened(said.files[0]).convert("L").getextrema() == (0, 0)


def test_ctrl_c_stops_within_a_step_and_leaves_no_half_written_file(tmp_path: Path):
    words = ("run", "text_to_image", "--set", "KSampler.steps=2000", "--json", "--output", tmp_path / "out")
    with process(*words, data=tmp_path) as running:
        assert running.stdout is not None
        after: list[str] = []
        for line in running.stdout:
            if "node_progressed" in line and running.returncode is None and not after:
                running.send_signal(signal.SIGINT)
                after.append(line)
            elif after:
                after.append(line)
        assert running.wait(timeout=60) == 130
    assert sum("SamplerStepBetween" in line and "node_finished" in line for line in after) <= 2
    assert json.loads(after[-1])["status"] == "cancelled"
    assert not list(tmp_path.glob("out/**/*"))
