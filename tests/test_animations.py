"""Animated files, read back by pillow."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from graph.builder import WorkflowBuilder
from nodes import animations, loading, saving, transparency
from nodes.picture_files import png_texts, to_uint8
from nodes.saving import SavedFiles
from tests.running import Bench, any_image, any_mask


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "output").mkdir()
    return Bench.below(tmp_path, animations, loading, saving, transparency)


def saved(bench: Bench, workflow: WorkflowBuilder) -> SavedFiles:
    result = bench.run(workflow, extra={"workflow": {"title": "Größe"}}).result.checked()
    (shown,) = result.shown.values()
    assert isinstance(shown, SavedFiles)
    return shown


def frames(path: Path) -> list[np.ndarray]:
    with Pillow.open(path) as image:
        found: list[np.ndarray] = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            found.append(np.asarray(image.convert("RGB")))
        return found


def test_a_lossless_webp_gives_every_frame_back_with_its_workflow(bench: Bench):
    with WorkflowBuilder() as workflow:
        animations.save_webp(any_image(20, 12, batch=3), fps=8.0)
    shown = saved(bench, workflow)
    assert shown.to_json() == {
        "images": [{"filename": "ComfyUI_00001_.webp", "subfolder": "", "type": "output"}],
        "animated": [True],
    }
    np.testing.assert_array_equal(np.stack(frames(shown.paths[0])), to_uint8(any_image(20, 12, batch=3).pixels))
    with Pillow.open(shown.paths[0]) as image:
        image.load()
        assert image.info["duration"] == 125
        texts = dict(str(image.getexif()[tag]).split(":", 1) for tag in (0x0110, 0x010F))
    assert json.loads(texts["prompt"]) == workflow.document()
    assert json.loads(texts["workflow"]) == {"title": "Größe"}


def test_an_animated_png_gives_every_frame_back_with_its_workflow(bench: Bench):
    with WorkflowBuilder() as workflow:
        animations.save_apng(any_image(20, 12, batch=3), filename_prefix="a/b", fps=20.0)
    shown = saved(bench, workflow)
    assert shown.paths[0] == bench.folders.output / "a" / "b_00001_.png"
    np.testing.assert_array_equal(np.stack(frames(shown.paths[0])), to_uint8(any_image(20, 12, batch=3).pixels))
    assert json.loads(png_texts(shown.paths[0].read_bytes())["prompt"]) == workflow.document()


def test_a_gif_keeps_few_colours_and_its_workflow(bench: Bench):
    with WorkflowBuilder() as workflow:
        animations.save_gif(any_image(6, 5, batch=2), fps=10.0)
    (path,) = saved(bench, workflow).paths
    np.testing.assert_allclose(np.stack(frames(path)), to_uint8(any_image(6, 5, batch=2).pixels), atol=1)
    with Pillow.open(path) as image:
        assert json.loads(json.loads(image.info["comment"])["prompt"]) == workflow.document()
        assert (image.info["duration"], image.info["loop"]) == (100, 0)


def test_one_transparent_picture_is_an_animation_of_one(bench: Bench):
    with WorkflowBuilder() as workflow:
        animations.save_webp(transparency.join_image_with_alpha(any_image(), any_mask()))
    with Pillow.open(saved(bench, workflow).paths[0]) as image:
        assert image.mode == "RGBA"


def test_a_mask_is_shown_in_grey(bench: Bench):
    with WorkflowBuilder() as workflow:
        saving.preview_mask(any_mask(9, 7))
    (path,) = saved(bench, workflow).paths
    assert path.parent == bench.folders.temp
    np.testing.assert_array_equal(frames(path)[0][..., 0], to_uint8(any_mask(9, 7).values)[0])


def test_what_was_saved_is_offered_and_loaded_from_the_output_folder(bench: Bench):
    with WorkflowBuilder() as workflow:
        saving.save_image(any_image(9, 7))
    saved(bench, workflow)
    assert loading.OUTPUT_PICTURES.names(bench.folders) == ["ComfyUI_00001_.png [output]"]
    for name in ("ComfyUI_00001_.png [output]", "ComfyUI_00001_.png"):
        with WorkflowBuilder() as workflow:
            loading.load_output(name)
        image, _ = bench.last(workflow)
        assert torch.equal(image.pixels, torch.as_tensor(to_uint8(any_image(9, 7).pixels)) / 255)
