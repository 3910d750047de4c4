"""Where a workflow may come from: files, pipes, pictures, examples; all through the command line."""

import json
import os
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from nodes.picture_files import encode_png
from tests.commands import Said, latentloom
from workflows import documents
from workflows.examples import build

EXAMPLE = json.dumps(build("text_to_image").document())


def picture(**texts: str) -> bytes:
    return encode_png(np.zeros((2, 2, 3), dtype=np.uint8), texts)


def validate(source: str | Path, data: Path, given: str | bytes | None = None) -> Said:
    return latentloom("validate", source, data=data, given=given)


def test_a_picture_may_come_through_standard_input(tmp_path: Path):
    assert validate("-", tmp_path, picture(prompt=EXAMPLE)).code == 0


def test_a_pipe_is_read_once(tmp_path: Path):
    for content in (EXAMPLE.encode(), picture(prompt=EXAMPLE)):
        pipe = tmp_path / f"pipe{len(content)}"
        os.mkfifo(pipe)
        writer = Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        assert validate(pipe, tmp_path).code == 0
        writer.join()


def test_what_never_ends_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "LARGEST_DOCUMENT", 1000)
    said = validate("/dev/zero", tmp_path)
    assert said.code == 2 and "too large" in said.err


def test_a_folder_does_not_hide_an_example_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps").mkdir()
    (tmp_path / "other").mkdir()
    assert validate("steps", tmp_path).code == 0
    said = validate("other", tmp_path)
    assert said.code == 2 and "a folder" in said.err


@pytest.mark.parametrize("source", ["a" * 5000, "", EXAMPLE])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, source: str):
    said = validate(source, tmp_path)
    assert said.code == 2 and "Traceback" not in said.err and len(said.err) < 1000


def test_odd_names_are_names(tmp_path: Path):
    path = tmp_path / "häuser & “Bäume” 雨.json"
    path.write_text(EXAMPLE)
    assert validate(path, tmp_path).code == 0


def test_a_picture_from_comfyui_may_hold_its_servers_notes(tmp_path: Path):
    document = json.loads(EXAMPLE)
    document["7"]["is_changed"] = [float("nan")]
    (tmp_path / "comfy.png").write_bytes(picture(prompt=json.dumps(document)))
    assert validate(tmp_path / "comfy.png", tmp_path).code == 0


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        ({}, "its metadata holds none"),
        ({"workflow": "{}"}, "the editor's own form"),
        ({"prompt": EXAMPLE, "workflow": "{"}, "“workflow” text of this PNG is not JSON"),
        ({"prompt": EXAMPLE, "workflow": "[" * 100_000}, "“workflow” text of this PNG is not JSON"),
        ({"prompt": "{"}, "not JSON"),
        ({"prompt": "[1]"}, "a list"),
        ({"prompt": '{"1": 2}'}, "a number"),
    ],
)
def test_a_picture_without_a_whole_workflow_is_refused(tmp_path: Path, texts: dict[str, str], answer: str):
    (tmp_path / "odd.png").write_bytes(picture(**texts))
    said = validate(tmp_path / "odd.png", tmp_path)
    assert said.code == 2 and answer in said.err
