import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from graph.builder import WorkflowBuilder
from graph.describe import node_info
from graph.folders import Folders
from graph.problems import InvalidWorkflow
from nodes import images, loading, picture_files, saving
from nodes.loading import LATENTS, PICTURES
from tests.running import Bench, any_latent


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "input" / "sub").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    return Bench.below(tmp_path, images, loading, saving)


def draw(path: Path, colour: str = "red", size: tuple[int, int] = (5, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, colour).save(path)
    return path


def inverting(name: str) -> WorkflowBuilder:
    with WorkflowBuilder() as workflow:
        images.invert_image(loading.load_image(name).IMAGE)
    return workflow


def test_a_picture_and_its_transparency_are_loaded(bench: Bench):
    draw(bench.folders.inputs[0] / "a.png", "#ff000000")
    with WorkflowBuilder() as workflow:
        loading.load_image("a.png")
    image, mask = bench.last(workflow)
    assert image.pixels[0, 0, 0].tolist() == [1, 0, 0]
    assert torch.equal(mask.values, torch.ones(1, 4, 5))


def test_a_channel_of_a_picture_is_loaded_as_a_mask(bench: Bench):
    draw(bench.folders.inputs[0] / "a.png", "#ff0000")
    with WorkflowBuilder() as workflow:
        loading.load_mask("a.png", channel="red")
    assert torch.equal(bench.last(workflow).values, torch.ones(1, 4, 5))


def test_what_was_saved_can_be_loaded_by_its_annotated_name(bench: Bench):
    with WorkflowBuilder() as workflow:
        saving.save_latent(any_latent())
    bench.run(workflow).result.checked()
    with WorkflowBuilder() as workflow:
        loading.load_latent("latents/ComfyUI_00001_.latent [output]")
    loaded = bench.last(workflow)
    assert torch.equal(loaded.samples, any_latent().samples)
    assert loaded.noise_mask is None and loaded.batch_index is None


def test_a_changed_picture_is_loaded_again_and_an_unchanged_one_is_not(bench: Bench):
    path = draw(bench.folders.inputs[0] / "a.png", "red")
    assert bench.run_last(inverting("a.png")).ran == ["LoadImage", "ImageInvert"]
    assert bench.run_last(inverting("a.png")).ran == []
    draw(path, "lime", size=(9, 9))
    assert bench.run_last(inverting("a.png")).ran == ["LoadImage", "ImageInvert"]
    assert bench.last(inverting("a.png")).pixels[0, 0, 0].tolist() == [1, 0, 1]


def test_names_on_offer_are_pictures_of_every_input_folder(tmp_path: Path):
    folders = Folders.below(tmp_path / "data", examples=tmp_path / "examples")
    for path in ("data/input/b.png", "data/input/sub/a.JPG", "data/input/.hidden.png", "examples/b.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "examples" / "notes.txt").touch()
    (tmp_path / "examples" / "x.latent").touch()
    assert PICTURES.names(folders) == ["b.png", "sub/a.JPG"]
    assert LATENTS.names(folders) == ["x.latent"]


def test_links_that_lead_in_circles_are_followed_once(bench: Bench):
    (folder,) = bench.folders.inputs
    draw(folder / "sub" / "a.png")
    (folder / "other").mkdir()
    for link, target in (("sub/up", folder), ("sub/across", folder / "other"), ("other/back", folder / "sub")):
        (folder / link).symlink_to(target)
    (folder / "itself").symlink_to("itself")
    assert PICTURES.names(bench.folders) == ["other/back/a.png", "sub/a.png"]


def test_the_users_own_picture_comes_before_the_example(tmp_path: Path):
    folders = Folders.below(tmp_path / "data", examples=tmp_path / "examples")
    example = draw(tmp_path / "examples" / "a.png")
    assert PICTURES.locate(folders, "a.png") == example
    own = draw(tmp_path / "data" / "input" / "a.png")
    assert PICTURES.locate(folders, "a.png") == own


def test_annotations_choose_the_folder_and_subfolders_are_allowed(bench: Bench):
    places = {
        "a.png": bench.folders.inputs[0] / "a.png",
        "sub/b.png [input]": bench.folders.inputs[0] / "sub" / "b.png",
        "sub/b.png [output]": bench.folders.output / "sub" / "b.png",
        "c [temp].png [temp]": bench.folders.temp / "c [temp].png",
    }
    for name, path in places.items():
        draw(path)
        assert PICTURES.locate(bench.folders, name) == path


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "sub/../../secret.png", "../input [temp]", ".. [output]"]
)
def test_names_that_lead_out_of_the_folder_are_refused(bench: Bench, tmp_path: Path, name: str):
    draw(tmp_path / "secret.png")
    with pytest.raises(InvalidWorkflow, match="leads out of the folder"):
        bench.run_last(inverting(name))


@pytest.mark.parametrize("name", ["b.png", "", "sub", "a.png [output]", "a" * 5000, "a\0.png"])
def test_a_missing_file_is_a_problem_before_anything_runs(bench: Bench, name: str):
    draw(bench.folders.inputs[0] / "a.png")
    with pytest.raises(InvalidWorkflow, match="cannot be used") as raised:
        bench.run_last(inverting(name))
    (problem,) = raised.value.problems
    assert (problem.kind, problem.input, problem.node_id) == ("missing_file", "image", "1")


def test_a_missing_file_says_where_it_was_looked_for_and_what_there_is(bench: Bench):
    draw(bench.folders.inputs[0] / "portrait.png")
    with pytest.raises(InvalidWorkflow, match="there is no picture of this name in .*input") as raised:
        bench.run_last(inverting("potrait.png"))
    assert "did you mean 'portrait.png'?" in str(raised.value)


def damaged(folder: Path, kind: str) -> str:
    path = draw(folder / "a.png", size=(64, 64))
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[:60])
        case _:
            path.write_text("no picture")
    return path.name


@pytest.mark.parametrize(
    ("kind", "advice"), [("empty", "0 bytes"), ("truncated", "damaged or cut short"), ("text", "not a picture")]
)
def test_a_damaged_picture_is_one_failure_with_advice(bench: Bench, kind: str, advice: str):
    failure = bench.run_last(inverting(damaged(bench.folders.inputs[0], kind))).failure
    assert str(failure).startswith("node 1 (LoadImage) failed: The picture ")
    assert advice in str(failure)


def test_an_oversized_picture_is_one_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture_files, "LONGEST_SIDE", 16)
    draw(bench.folders.inputs[0] / "a.png", size=(17, 2))
    assert "it measures 17x2, more than 16 on a side" in str(bench.run_last(inverting("a.png")).failure)


def test_a_damaged_latent_is_one_failure(bench: Bench):
    (bench.folders.inputs[0] / "a.latent").write_bytes(b"\0" * 7)
    with WorkflowBuilder() as workflow:
        loading.load_latent("a.latent")
    assert "Save the latent again" in str(bench.run_last(workflow).failure)


def test_editors_are_offered_the_files_and_an_upload_button(bench: Bench):
    draw(bench.folders.inputs[0] / "a.png")
    names, options = node_info(loading.load_image, bench.folders)["input"]["required"]["image"]
    assert names == ["a.png"] and options["image_upload"] is True
    assert node_info(loading.load_image, bench.folders)["output_name"] == ["IMAGE", "MASK"]


def test_importing_every_node_module_loads_no_heavy_library():
    modules = (
        "checkpoints, custom_sampling, images, latents, loading, masks, previews, samplers, sampling, "
        "saving, schedules, text"
    )
    heavy = "{'torch', 'PIL', 'numpy', 'diffusers', 'transformers', 'scipy', 'safetensors'}"
    code = f"from nodes import {modules}; import sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
