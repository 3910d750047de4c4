"""Every kind of bad input, through the command line: one clear message, no traceback, a non-zero exit code."""

import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from PIL import Image

from nodes.embedded import LOOMLET
from tests.commands import Said, latentloom, opened, process, saved
from workflows.examples import build

Document = dict[str, Any]


def refused(said: Said, *answers: str, code: int = 2) -> None:
    assert said.code == code, (said.out, said.err)
    assert "Traceback" not in said.err
    for answer in answers:
        assert answer in said.err, said.err


def example(**changes: Any) -> Document:
    """text_to_image with two steps; changes are `node_input=value` by class name."""
    document = build("text_to_image").document()
    by_class = {used["class_type"]: used for used in document.values()}
    by_class["KSampler"]["inputs"]["steps"] = 2
    for place, value in changes.items():
        name, _, given = place.partition("__")
        if value is None:
            del by_class[name]["inputs"][given]
        else:
            by_class[name]["inputs"][given] = value
    return document


@pytest.mark.parametrize(
    ("changes", "answers"),
    [
        ({"KSampler__model": None}, ["input 'model'", "required and missing"]),
        ({"KSampler__steps": "many"}, ["input 'steps'", "a whole number", "'many'"]),
        ({"KSampler__steps": 7.9}, ["input 'steps'", "7.9"]),
        ({"KSampler__cfg": 1000}, ["input 'cfg'", "at most 100"]),
        ({"KSampler__sampler_name": "dpmp_2m"}, ["did you mean 'dpmpp_2m'?"]),
        ({"KSampler__model": ["99", 0]}, ["node '99'", "not in this workflow"]),
        ({"KSampler__model": ["1", 7]}, ["output 7", "0: MODEL"]),
        ({"KSampler__model": ["1", 2]}, ["expected MODEL", "gives VAE", "output 0 is MODEL"]),
        ({"KSampler__model": ["1"]}, ["a link is a node id and an output index"]),
        ({"KSampler__latent_image": ["5", 0]}, ["depends on itself", "5 (KSampler) → 5 (KSampler)"]),
        ({"CheckpointLoaderSimple__ckpt_name": "lomlet"}, ["did you mean 'loomlet'?"]),
    ],
)
def test_each_problem_of_a_workflow_is_named(tmp_path: Path, changes: Document, answers: list[str]):
    said = latentloom("validate", saved(tmp_path, example(**changes)), data=tmp_path)
    refused(said, *answers)


def test_an_unknown_class_is_named_with_the_nearest_one(tmp_path: Path):
    document = example()
    document["9"] = {"class_type": "KSamplr", "inputs": {}}
    refused(latentloom("validate", saved(tmp_path, document), data=tmp_path), "did you mean 'KSampler'?")


def test_a_workflow_without_output_is_refused(tmp_path: Path):
    document = {key: used for key, used in example().items() if used["class_type"] != "SaveImage"}
    refused(latentloom("run", saved(tmp_path, document), data=tmp_path), "no output node")


def test_all_problems_are_reported_at_once(tmp_path: Path):
    document = example(KSampler__steps="x", KSampler__cfg=-1, EmptyLatentImage__width=3)
    refused(latentloom("run", saved(tmp_path, document), data=tmp_path), "3 reasons", "'steps'", "'cfg'", "'width'")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("{not json", "this is not JSON"),
        ("", "this is not JSON"),
        ("[1, 2]", "a list"),
        ("{}", "no nodes"),
        ('{"1": {"inputs": {}}}', "“class_type” is missing"),
        ('{"nodes": [], "links": []}', "no nodes"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_workflow_is_refused(tmp_path: Path, text: str, answer: str):
    path = tmp_path / "bad.json"
    path.write_text(text)
    refused(latentloom("run", path, data=tmp_path), answer)


def test_a_missing_file_is_named(tmp_path: Path):
    refused(latentloom("run", "text_to_imag", data=tmp_path), "no such file", "did you mean 'text_to_image'?")


def test_a_png_without_a_workflow_is_refused(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    refused(latentloom("run", tmp_path / "plain.png", data=tmp_path), "carries no workflow")


def test_a_truncated_png_is_refused(tmp_path: Path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    refused(latentloom("run", tmp_path / "cut.png", data=tmp_path), "cut.png")


def broken_checkpoint(data: Path, break_it: Callable[[Path], None]) -> Said:
    """Run text_to_image on a copy of the embedded model in which something is broken."""
    folder = data / "models" / "checkpoints" / "broken"
    shutil.copytree(LOOMLET, folder)
    break_it(folder)
    return latentloom("run", "text_to_image", "--set", "1.ckpt_name=broken", data=data)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path):
    def truncate(folder: Path) -> None:
        weights = next((folder / "unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:100_000])

    refused(broken_checkpoint(tmp_path, truncate), "CheckpointLoaderSimple", "truncated", code=1)


def test_a_checkpoint_without_a_part_is_refused(tmp_path: Path):
    said = broken_checkpoint(tmp_path, lambda folder: shutil.rmtree(folder / "vae"))
    refused(said, "CheckpointLoaderSimple", "vae", code=1)


def test_pickled_weights_are_refused(tmp_path: Path):
    def pickle(folder: Path) -> None:
        next((folder / "unet").glob("*.safetensors")).unlink()
        (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")

    refused(broken_checkpoint(tmp_path, pickle), "pickle", code=1)


def test_a_pickled_checkpoint_file_is_refused(tmp_path: Path):
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    (tmp_path / "models" / "checkpoints" / "old.ckpt").write_bytes(b"\x80\x04.")
    said = latentloom("run", "text_to_image", "--set", "1.ckpt_name=old.ckpt", data=tmp_path)
    refused(said, "CheckpointLoaderSimple", "pickle", "--allow-pickle")


def test_weights_of_the_wrong_shape_are_refused(tmp_path: Path):
    def reshape(folder: Path) -> None:
        weights = next((folder / "unet").glob("*.safetensors"))
        tensors = cast("dict[str, torch.Tensor]", cast(Any, safetensors.torch).load_file(weights))
        cast(Any, safetensors.torch).save_file({**tensors, "conv_in.weight": torch.zeros(3, 3)}, weights)

    refused(broken_checkpoint(tmp_path, reshape), "conv_in.weight", "[3, 3]", code=1)


def inpainting(data: Path, mask_size: tuple[int, int]) -> Said:
    """inpaint with a mask of another size than its picture."""
    (data / "input").mkdir(parents=True)
    mask = Image.new("RGB", mask_size)
    mask.paste((255, 255, 255), (0, 0, mask_size[0] // 2, mask_size[1]))
    mask.save(data / "input" / "house_mask.png")
    return latentloom("run", "inpaint", "--set", "KSampler.steps=2", data=data)


@pytest.mark.parametrize("size", [(64, 64), (50, 200), (1, 1), (300, 7)])
def test_a_mask_of_another_size_is_resized(tmp_path: Path, size: tuple[int, int]):
    said = inpainting(tmp_path, size)
    assert said.code == 0 and opened(said.files[0]).size == (128, 128)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"", "empty (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 8, 8, 8, 2, 0, 0, 0), "boat.png"),
        (b"not a picture", "boat.png"),
    ],
)
def test_a_damaged_picture_is_refused(tmp_path: Path, content: bytes, answer: str):
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "boat.png").write_bytes(content)
    refused(latentloom("run", "image_to_image", data=tmp_path), "LoadImage", answer, code=1)


def test_an_oversized_picture_is_refused(tmp_path: Path):
    (tmp_path / "input").mkdir()
    Image.new("1", (20_000, 1)).save(tmp_path / "input" / "boat.png")
    refused(latentloom("run", "image_to_image", data=tmp_path), "LoadImage", "20000", code=1)


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    said = latentloom("run", saved(tmp_path, example()), "--output", tmp_path / "file", data=tmp_path)
    refused(said, "SaveImage", "in the way", code=1)


def test_a_disk_that_takes_no_more_leaves_no_half_written_picture(tmp_path: Path):
    def no_file_above_two_kilobytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    words = ("run", saved(tmp_path, example()), "--output", tmp_path / "out")
    with process(*words, data=tmp_path, preexec_fn=no_file_above_two_kilobytes) as running:
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 1 and "Traceback" not in errors and "SaveImage" in errors
    assert not list(tmp_path.glob("out/**/*.png")) and not list(tmp_path.glob("out/**/.*"))


def test_own_nodes_that_do_not_load_are_named(tmp_path: Path):
    (tmp_path / "mine.py").write_text("import nothing_of_this_name\n")
    said = latentloom("--nodes", tmp_path / "mine.py", "nodes", data=tmp_path)
    refused(said, "mine.py", "nothing_of_this_name")


def test_a_node_that_takes_a_built_in_name_is_refused(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from graph.node import node\n\n@node('KSampler')\ndef mine(a: int = 0) -> int:\n    return a\n"
    )
    refused(latentloom("--nodes", tmp_path / "mine.py", "nodes", data=tmp_path), "two nodes are called 'KSampler'")
