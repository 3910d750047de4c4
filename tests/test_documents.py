"""Where a workflow may come from: files, pipes, pictures, examples; all through the command line."""

import io
import json
import os
import struct
import zlib
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from nodes.picture_files import encode_png
from tests.canvas import INFOS
from tests.commands import Said, latentloom
from workflows import documents
from workflows.documents import document_in
from workflows.editor.editor_form import to_editor
from workflows.examples import build

EXAMPLE = json.dumps(build("text_to_image").document())
DRAWN = json.dumps(to_editor(build("text_to_image").workflow(), INFOS))
BY_SHAPE = {"api": EXAMPLE, "editor": DRAWN, "api, sent": json.dumps({"prompt": json.loads(EXAMPLE)}),
            "editor, sent": json.dumps({"prompt": json.loads(DRAWN)})}  # fmt: skip


def picture(**texts: str) -> bytes:
    return encode_png(np.zeros((2, 2, 3), dtype=np.uint8), texts)


def validate(source: str | Path, data: Path, given: str | bytes | None = None) -> Said:
    return latentloom("validate", source, data=data, given=given)


def with_exif(kind: str, *texts: str) -> bytes:
    """A small picture with texts where ComfyUI puts them in such files."""
    image, file = Image.new("RGB", (8, 8)), io.BytesIO()
    exif = image.getexif()
    for at, text in enumerate(texts):
        exif[0x0110 - at] = text
    image.save(file, format=kind, exif=exif)
    return file.getvalue()


def animated(**texts: str) -> bytes:
    """A PNG with texts where ComfyUI puts them in animated ones."""
    content = picture()
    chunks = b""
    for name, text in texts.items():
        data = name.encode() + b"\0" + text.encode("latin-1")
        chunks += struct.pack(">I4s", len(data), b"comf") + data + struct.pack(">I", zlib.crc32(b"comf" + data))
    end = content.index(b"IEND") - 4
    return content[:end] + chunks + content[end:]


@pytest.mark.parametrize("shape", BY_SHAPE)
def test_the_format_of_json_is_told_by_its_shape(shape: str):
    document = document_in(BY_SHAPE[shape].encode(), lambda: INFOS)
    assert document.workflow == build("text_to_image").workflow()
    assert document.form == shape.partition(",")[0]
    assert document.extra == ({"workflow": json.loads(DRAWN)} if document.form == "editor" else {})


PICTURES = {
    "PNG with what ran": picture(prompt=EXAMPLE),
    "PNG with the editor's form": picture(workflow=DRAWN),
    "PNG with both": picture(prompt=EXAMPLE, workflow=DRAWN),
    "PNG with API-format where an editor's should be": picture(workflow=EXAMPLE),
    "PNG with an editor's where API-format should be": picture(prompt=DRAWN),
    "animated PNG": animated(prompt=EXAMPLE, workflow=DRAWN),
    "WebP with both": with_exif("WEBP", f"prompt:{EXAMPLE}", f"workflow:{DRAWN}"),
    "WebP with the editor's form": with_exif("WEBP", f"workflow:{DRAWN}"),
    "JPEG with what ran": with_exif("JPEG", f"prompt:{EXAMPLE}"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_may_carry_either_form(kind: str):
    document = document_in(PICTURES[kind], lambda: INFOS)
    assert document.workflow == build("text_to_image").workflow()
    both = kind.endswith("both") or kind.startswith("animated")
    assert document.form == ("editor" if "editor's" in kind and "API-format where an" not in kind else "api")
    assert ("workflow" in document.extra) == (both or document.form == "editor")


def test_texts_in_exif_may_hold_any_letter():
    drawn = json.dumps(json.loads(DRAWN) | {"extra": {"by": "häuser 雨"}}, ensure_ascii=False)
    image, file = Image.new("RGB", (8, 8)), io.BytesIO()
    exif = image.getexif()
    exif[0x0110] = f"workflow:{drawn}".encode()
    image.save(file, format="WEBP", exif=exif)
    assert document_in(file.getvalue(), lambda: INFOS).extra["workflow"]["extra"] == {"by": "häuser 雨"}


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (with_exif("WEBP"), "carries no workflow"),
        (with_exif("JPEG", "Latentloom"), "carries no workflow"),
        (with_exif("WEBP", "prompt:{"), "not JSON"),
        (with_exif("WEBP", f"prompt:{EXAMPLE}")[:30], "damaged or cut short"),
        (b"\xff\xd8\xff" + bytes(50), "damaged or cut short"),
        (animated(prompt=EXAMPLE)[:200], "carries no workflow"),
    ],
)
def test_a_picture_of_another_kind_without_a_whole_workflow_is_refused(tmp_path: Path, content: bytes, answer: str):
    (tmp_path / "odd").write_bytes(content)
    said = validate(tmp_path / "odd", tmp_path)
    assert said.code == 2 and answer in said.err and "Traceback" not in said.err


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
        ({"workflow": "{}"}, "this workflow has no nodes"),
        ({"workflow": "{"}, "not JSON"),
        ({"workflow": '{"nodes": [1]}'}, "“nodes[0]” should be an object"),
        ({"prompt": EXAMPLE, "workflow": "{"}, "“workflow” text of this picture is not JSON"),
        ({"prompt": EXAMPLE, "workflow": "[" * 100_000}, "“workflow” text of this picture is not JSON"),
        ({"prompt": "{"}, "not JSON"),
        ({"prompt": "[1]"}, "a list"),
        ({"prompt": '{"1": 2}'}, "a number"),
    ],
)
def test_a_picture_without_a_whole_workflow_is_refused(tmp_path: Path, texts: dict[str, str], answer: str):
    (tmp_path / "odd.png").write_bytes(picture(**texts))
    said = validate(tmp_path / "odd.png", tmp_path)
    assert said.code == 2 and answer in said.err
