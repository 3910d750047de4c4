import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from graph.events import Event, NodeFinished, NodeReused
from graph.folders import Folders
from graph.workflow import parse
from nodes.engine import EXAMPLES as PICTURES
from nodes.engine import Engine
from nodes.picture_files import decode_mask, decode_picture
from workflows.documents import EXAMPLES as FOLDER
from workflows.examples import EXAMPLES, build
from workflows.examples.__main__ import main as script


def engine(folder: Path) -> Engine:
    return Engine(Folders.below(folder, examples=PICTURES))


def run(engine: Engine, name: str) -> tuple[list[bytes], list[str]]:
    """The pictures an example's JSON file makes, and the classes of the nodes that ran for them."""
    events: list[Event] = []
    workflow = parse((FOLDER / f"{name}.json").read_bytes())
    result = engine.run(workflow, emit=events.append).checked()
    paths: list[Path] = [path for shown in result.shown.values() for path in getattr(shown, "paths", ())]
    assert any(isinstance(event, NodeReused | NodeFinished) for event in events)
    return [path.read_bytes() for path in paths], [
        event.class_name for event in events if isinstance(event, NodeFinished)
    ]


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_an_example_runs_twice_to_the_same_bytes_and_the_second_run_only_saves(tmp_path: Path, name: str):
    used = engine(tmp_path)
    first, ran = run(used, name)
    second, ran_again = run(used, name)
    assert first and first == second
    assert len(ran) > 5 and ran_again == ["SaveImage"]


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_json_files_are_the_python_examples_saved(name: str):
    assert json.loads((FOLDER / f"{name}.json").read_text()) == build(name).document()


def test_every_json_file_has_its_python():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(EXAMPLES)


def test_inpainting_keeps_every_pixel_outside_the_mask(tmp_path: Path):
    from nodes.maths.masks import grow

    run(engine(tmp_path), "inpaint")
    (saved,) = (tmp_path / "output").glob("*.png")
    before = decode_picture(PICTURES / "house.png").pixels
    after = decode_picture(saved).pixels
    mask = grow(decode_mask(PICTURES / "house_mask.png", "red"), 6)
    kept = mask == 0
    assert 0.2 < kept.float().mean() < 0.8
    assert torch.equal(before[kept], after[kept])
    assert (before[~kept] - after[~kept]).abs().mean() > 0.05


def test_outpainting_keeps_what_was_there(tmp_path: Path):
    run(engine(tmp_path), "outpaint")
    (saved,) = (tmp_path / "output").glob("*.png")
    after = decode_picture(saved).pixels
    before = decode_picture(PICTURES / "boat.png").pixels
    assert after.shape == (1, 128, 192, 3)
    assert torch.equal(after[:, :, 32 + 16 : 160 - 16], before[:, :, 16:-16])


def quick(name: str, **values: object) -> dict[str, Any]:
    """An example of few steps, with other values in its nodes of these titles."""
    document = build(name).document()
    for used in document.values():
        if "steps" in used["inputs"]:
            used["inputs"]["steps"] = 2
        if used["_meta"]["title"] in values:
            used["inputs"]["value"] = values[used["_meta"]["title"]]
    return document


def ran(engine: Engine, document: dict[str, Any]) -> Counter[str]:
    events: list[Event] = []
    engine.run(document, emit=events.append).checked()
    return Counter(event.class_name for event in events if isinstance(event, NodeFinished))


def test_a_switch_runs_the_branch_that_is_taken_alone(tmp_path: Path):
    used = engine(tmp_path)
    small = ran(used, quick("switch", Enlarge=False))
    assert (small["KSampler"], small["CLIPTextEncode"], small["LatentUpscale"]) == (1, 2, 0)
    large = ran(used, quick("switch", Enlarge=True))
    assert (large["KSampler"], large["CLIPTextEncode"], large["LatentUpscale"]) == (1, 0, 1)


def test_another_line_is_another_picture_and_the_others_are_kept(tmp_path: Path):
    used = engine(tmp_path)
    ran(used, quick("for_each", Subjects="a red house\na blue boat"))
    again = ran(used, quick("for_each", Subjects="a red house\na blue boat\na green tree"))
    assert (again["KSampler"], again["VAEDecode"], again["ContactSheet"]) == (1, 1, 1)


def test_a_while_makes_as_many_pictures_as_its_condition_asks_for(tmp_path: Path):
    used = engine(tmp_path)
    assert ran(used, quick("while", **{"First denoise": 0.4}))["KSampler"] == 2  # 0.4 and 0.28
    assert ran(used, quick("while", **{"First denoise": 0.2}))["KSampler"] == 0


def test_an_example_is_saved_from_its_script(tmp_path: Path):
    path = tmp_path / "my steps.json"
    done = CliRunner().invoke(script, ["steps", "--save", str(path)])
    assert done.output == f"{path}\n" and json.loads(path.read_text()) == build("steps").document()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "which example?"),
        (["step"], "is not one of"),
        (["steps", "--save", "{folder}/none/a.json"], "No such file"),
        (["text_to_image", "--output", "{folder}/file"], "a file is in the way"),
    ],
)
def test_what_a_script_cannot_do_is_explained(tmp_path: Path, words: list[str], answer: str):
    (tmp_path / "file").touch()
    done = CliRunner().invoke(script, [word.format(folder=tmp_path) for word in words])
    assert done.exit_code and isinstance(done.exception, SystemExit) and answer in done.output
