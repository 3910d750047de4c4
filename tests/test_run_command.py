import json
import signal
import time
from pathlib import Path
from typing import Any

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


def test_events_say_why_a_step_runs(tmp_path: Path):
    latentloom("run", "text_to_image", *QUICK, data=tmp_path)
    said = latentloom("run", "text_to_image", *QUICK, "--set", "KSampler.cfg=3.5", "--json", data=tmp_path)
    why = {event["class_type"]: event["reasons"] for event in said.events if event["event"] == "node_started"}
    assert any("cfg" in reason and "3.5" in reason for reason in why["KSampler"])
    assert "CLIPTextEncode" not in why


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
        ("KSampler.cfg=NaN", "finite"),
        (".text=x", "no node has the id, title or class ''"),
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


def test_a_text_may_hold_equal_signs_and_quotes(tmp_path: Path):
    said = latentloom("run", "text_to_image", *QUICK, "--set", 'Prompt.text=a = "b", ü.c=1', data=tmp_path)
    prompt = json.loads(png_texts(said.files[0].read_bytes())["prompt"])
    assert prompt["2"]["inputs"]["text"] == 'a = "b", ü.c=1'


def test_an_id_may_hold_dots(tmp_path: Path):
    document = {f"5.{name}": used for name, used in build("text_to_image").document().items()}
    for used in document.values():
        used["inputs"] = {
            name: [f"5.{given[0]}", given[1]] if isinstance(given, list) else given
            for name, given in used["inputs"].items()
        }
    said = latentloom("run", saved(tmp_path, document), "--set", "5.5.steps=x", data=tmp_path)
    assert said.code == 2 and "node 5.5 (KSampler), input 'steps'" in said.err


def test_a_seed_for_a_workflow_without_one_is_refused(tmp_path: Path):
    document = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "house.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    said = latentloom("run", saved(tmp_path, document), "--seed", "3", data=tmp_path)
    assert said.code == 2 and "no node of this workflow has a seed" in said.err


@pytest.mark.parametrize("words", [("nope",), ("text_to_image", "--set", "KSampler.steps=0")])
def test_a_program_reads_a_refusal_as_json(tmp_path: Path, words: tuple[str, ...]):
    said = latentloom("run", *words, "--json", data=tmp_path)
    (event,) = said.events
    assert said.code == 2 and event["event"] == "refused"
    assert f"Error: {event['message']}" in said.err
    assert [problem["input"] for problem in event["problems"]] == ["steps"] * (len(words) - 1 > 0)


LOUD = """
import sys
from graph.node import node
from graph.values import Ui
print("imported")
sys.argv[:] = ["changed"]

@node("Loud")
def loud(text: str = "\\ud83d ü") -> Ui:
    print("called")
    return Ui()
"""


def test_what_own_nodes_print_does_not_mix_with_the_answer(tmp_path: Path):
    (tmp_path / "loud.py").write_text(LOUD)
    document = {"1": {"class_type": "Loud", "inputs": {}, "_meta": {"title": "\ud83d and ü"}}}
    words = ("--nodes", tmp_path / "loud.py", "run", saved(tmp_path, document))
    said = latentloom(*words, "--json", data=tmp_path)
    assert said.code == 0 and said.events[-1]["status"] == "ok"
    assert "imported" in said.err and "called" in said.err
    assert latentloom(*words, data=tmp_path).out == ""


def test_a_reader_that_stops_early_gets_no_traceback(tmp_path: Path):
    with process("run", "text_to_image", *QUICK, "--json", data=tmp_path) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert "Traceback" not in running.stderr.read()
    assert running.returncode == 1


WAITING = """
import time
from graph.node import node
from graph.values import Ui
print("imported", flush=True)
time.sleep(0.1 if {quick} else 60)

@node("Wait")
def wait() -> Ui:
    print("called", flush=True)
    time.sleep(60)
    return Ui()
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("when", "times"), [("imported", 1), ("called", 2)])
def test_an_interruption_is_answered_in_a_line(tmp_path: Path, kind: signal.Signals, when: str, times: int):
    (tmp_path / "waiting.py").write_text(WAITING.format(quick=when == "called"))
    document = saved(tmp_path, {"1": {"class_type": "Wait", "inputs": {}}})
    with process("--nodes", tmp_path / "waiting.py", "run", document, data=tmp_path) as running:
        assert running.stderr is not None
        while when not in running.stderr.readline():
            pass
        for _ in range(times):
            running.send_signal(kind)
            time.sleep(0.2)
        said = running.stderr.read()
    assert "Traceback" not in said
    assert running.returncode == (130 if kind == signal.SIGINT or when == "called" else -signal.SIGTERM)


def own_nodes(folder: Path, body: str) -> Path:
    """A file of nodes that needs nothing but the engine."""
    path = folder / "own.py"
    path.write_text(
        "import time\nfrom dataclasses import dataclass\n\n"
        "from graph.node import node\nfrom graph.values import Ui, Value\n\n\n"
        "@dataclass(frozen=True)\nclass Box(Value, kind='BOX'):\n    items: list[int]\n\n\n"
        "@dataclass(frozen=True)\nclass Shown(Ui):\n    text: str\n\n\n"
        "@node('Pack')\ndef pack() -> Box:\n    return Box([1])\n\n\n"
        "@node('Open')\ndef open_box(box: Box) -> Shown:\n    return Shown(str(box.items))\n\n\n" + body
    )
    return path


def test_a_node_that_takes_too_long_fails_alone(tmp_path: Path):
    nodes = own_nodes(
        tmp_path, "@node('Sleep')\ndef sleep(box: Box) -> Shown:\n    time.sleep(60)\n    return Shown('')\n"
    )
    document: dict[str, Any] = {
        "box": {"class_type": "Pack", "inputs": {}},
        "open": {"class_type": "Open", "inputs": {"box": ["box", 0]}},
        "sleep": {"class_type": "Sleep", "inputs": {"box": ["box", 0]}},
    }
    said = latentloom(
        "--nodes", nodes, "run", saved(tmp_path, document), "--node-timeout", "0.3", "--json", data=tmp_path
    )
    ended = {(event["event"], event.get("node")) for event in said.events}
    assert said.code == 1
    assert {("node_finished", "open"), ("node_failed", "sleep")} <= ended
    assert "had not returned after 0.3 seconds" in said.out


@pytest.mark.parametrize("checked", [True, False])
def test_a_node_that_changes_what_it_is_given_is_found_if_asked(tmp_path: Path, checked: bool):
    nodes = own_nodes(tmp_path, "@node('Add')\ndef add(box: Box) -> Box:\n    box.items.append(2)\n    return box\n")
    document: dict[str, Any] = {
        "box": {"class_type": "Pack", "inputs": {}},
        "add": {"class_type": "Add", "inputs": {"box": ["box", 0]}},
        "open": {"class_type": "Open", "inputs": {"box": ["add", 0]}},
    }
    words = ["--check-nodes"] if checked else []
    said = latentloom("--nodes", nodes, "run", saved(tmp_path, document), "--store", "none", *words, data=tmp_path)
    assert said.code == int(checked)
    assert ("changes its input 'box' in place" in said.err) is checked
