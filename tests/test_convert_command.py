"""`latentloom convert`, and what pictures carry for editors."""

import json
from pathlib import Path

import pytest

from tests.canvas import DATA, fixture
from tests.commands import Said, latentloom, saved
from workflows.documents import EXAMPLES
from workflows.editor.shapes import is_editor_document

QUICK = ("--set", "KSampler.steps=2")
EXAMPLE = json.loads((EXAMPLES / "text_to_image.json").read_text())


def answer(said: Said) -> object:
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_a_workflow_goes_to_the_editor_and_back(tmp_path: Path):
    drawn = tmp_path / "drawn.json"
    said = latentloom("convert", "text_to_image", "-o", drawn, data=tmp_path)
    assert (said.code, said.out) == (0, "") and is_editor_document(json.loads(drawn.read_text()))
    assert answer(latentloom("convert", drawn, data=tmp_path)) == EXAMPLE


def test_the_format_that_is_asked_for_is_written(tmp_path: Path):
    assert answer(latentloom("convert", "text_to_image", "--to", "api", data=tmp_path)) == EXAMPLE
    document = fixture("subgraphs")
    assert answer(latentloom("convert", saved(tmp_path, document), "--to", "editor", data=tmp_path)) == document


def test_what_has_to_be_known_of_a_conversion_is_told_beside_it(tmp_path: Path):
    document = fixture("subgraphs")
    document["nodes"][0]["mode"] = 2
    said = latentloom("convert", saved(tmp_path, document), data=tmp_path)
    assert answer(said) and "Warning: node 2:11:31 (CLIPTextEncode “Prompt”), input 'clip': it comes from" in said.err


def test_what_cannot_be_converted_is_explained(tmp_path: Path):
    document = fixture("text_to_image")
    document["nodes"][3]["type"] = "KSamplr"
    said = latentloom("convert", saved(tmp_path, document), data=tmp_path)
    assert (
        said.code == 2 and "node 3 (KSamplr): there is no node called 'KSamplr' (did you mean 'KSampler'?)" in said.err
    )


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path):
    said = latentloom("convert", "steps", "-o", tmp_path / "none" / "a.json", data=tmp_path)
    assert said.code == 2 and "none/a.json: No such file" in said.err


def test_letters_of_every_kind_are_written(tmp_path: Path):
    document = json.loads(json.dumps(EXAMPLE))
    document["2"]["inputs"]["text"] = "häuser 雨 \ud800"
    path = saved(tmp_path, document)
    assert answer(latentloom("convert", path, "--to", "api", data=tmp_path)) == document
    document["2"]["inputs"]["text"] = "häuser 雨"
    assert "häuser 雨" in latentloom("convert", saved(tmp_path, document), data=tmp_path).out


def test_an_editors_document_runs_to_the_same_picture_as_its_api_form(tmp_path: Path):
    drawn = tmp_path / "drawn.json"
    latentloom("convert", "text_to_image", "-o", drawn, data=tmp_path)
    pictures = [
        latentloom("run", source, *QUICK, "--store", "none", data=tmp_path).files[0]
        for source in ("text_to_image", drawn)
    ]
    from nodes.picture_files import decode_picture, png_texts

    first, second = (decode_picture(path).pixels for path in pictures)
    assert first.equal(second)
    texts = [png_texts(path.read_bytes()) for path in pictures]
    assert json.loads(texts[0]["prompt"]) == json.loads(texts[1]["prompt"])


REROUTED = DATA / "reroutes_primitives_muted_bypassed.json"
CHANGED = ("--set", "EmptyLatentImage.width=64", "--set", "KSampler.steps=2")


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("text_to_image", CHANGED),
        (REROUTED, (*CHANGED, "--set", "SaveImage.filename_prefix=house")),
        (REROUTED, ("--seed", "7")),  # which a primitive node gives
        (DATA / "subgraphs.json", ()),
        (DATA / "subgraphs.json", ("--set", "2:13.steps=2")),
    ],
)
def test_a_picture_carries_for_editors_what_made_it(tmp_path: Path, source: str | Path, changes: tuple[str, ...]):
    said = latentloom("run", source, *changes, data=tmp_path)
    assert said.code == 0, said.err
    ran = answer(latentloom("convert", said.files[0], "--to", "api", data=tmp_path))
    latentloom("convert", said.files[0], "-o", tmp_path / "drawn.json", data=tmp_path)
    assert answer(latentloom("convert", tmp_path / "drawn.json", data=tmp_path)) == ran


def test_an_editors_document_is_carried_with_what_was_changed(tmp_path: Path):
    document = fixture("text_to_image")
    words = ("--set", "4.ckpt_name=loomlet", "--set", "6.text=a {b}", "--seed", "7", "--set", "KSampler.steps=2")
    size = ("--set", "5.width=64", "--set", "5.height=64")
    (picture,) = latentloom("run", saved(tmp_path, document), *words, *size, data=tmp_path).files
    carried = answer(latentloom("convert", picture, "--to", "editor", data=tmp_path))
    by_id = {node["id"]: node for node in document["nodes"]}
    by_id[4]["widgets_values"] = ["loomlet"]
    by_id[6]["widgets_values"] = [r"a \{b\}"]
    by_id[5]["widgets_values"] = [64, 64, 1]
    by_id[3]["widgets_values"] = [7, "randomize", 2, 8, "euler", "normal", 1]
    assert carried == document
