"""CLIP's picture encoder: in every layout the same, and what it says is what transformers says."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.batches import image_from_batch
from nodes.clip_vision import encode_clip_vision, load_clip_vision
from nodes.engine import Engine
from nodes.images import empty_image
from nodes.inspection import describe
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.picture_encoder_layout import picture_encoder_plan
from nodes.picture_prompts import ClipVision, ClipVisionOutput
from nodes.values import Image
from nodes.vision.seeing import pillow
from tests import original_layouts as layouts
from tests import picture_encoders, tiny_models

ENCODER = picture_encoders.tiny()
PIXELS = torch.rand(2, 40, 64, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    found = Folders.below(tmp_path_factory.mktemp("data"))
    root, weights = found.models("clip_vision"), cast("dict[str, Tensor]", ENCODER.state_dict())
    picture_encoders.write_folder(root / "folder", ENCODER)
    picture_encoders.write_file(root / "file.safetensors", ENCODER)
    layouts.write_weights(root / "open.safetensors", picture_encoders.as_open_clip(weights))
    text = layouts.random_weights(layouts.clip(layouts.Text(64, 1, 64, 9)))
    layouts.write_weights(root / "words.safetensors", text)
    layouts.write_weights(root / "whole.safetensors", weights | text | {"logit_scale": torch.ones(())})
    return found


@pytest.fixture(scope="module")
def pool() -> ModelPool:
    return ModelPool("fp32", "cpu")


def loaded(folders: Folders, name: str) -> ClipVision:
    return load_clip_vision(name, folders=folders)


def processor(**settings: Any) -> Any:
    side = {"height": picture_encoders.SIDE, "width": picture_encoders.SIDE}
    shorter = {"shortest_edge": picture_encoders.SIDE}
    return cast(Any, transformers).CLIPImageProcessorPil(**{"size": shorter, "crop_size": side, **settings})


@pytest.mark.parametrize("name", ["folder", "file.safetensors", "open.safetensors", "whole.safetensors"])
def test_every_layout_says_what_transformers_says(name: str, folders: Folders, pool: ModelPool):
    side = picture_encoders.SIDE
    square = (PIXELS[:, :side, :side] * 255).round() / 255
    found = encode_clip_vision(loaded(folders, name), Image(square), "none", models=pool)
    asked = ENCODER(processor()(images=pillow(square), return_tensors="pt").pixel_values, output_hidden_states=True)
    for ours, theirs in (
        (found.image_embeds, asked.image_embeds),
        (found.last_hidden_state, asked.last_hidden_state),
        (found.penultimate_hidden_states, asked.hidden_states[-2]),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found.last_hidden_state, found.penultimate_hidden_states)


def test_weights_of_16_bits_stay_so_and_compute_exactly(folders: Folders):
    root = folders.models("clip_vision")
    halves = {name: tensor.half() for name, tensor in ENCODER.state_dict().items()}
    layouts.write_weights(root / "half.safetensors", halves)
    layouts.write_weights(root / "wide.safetensors", {name: tensor.float() for name, tensor in halves.items()})
    pools = [ModelPool("fp32", "cpu") for _ in range(2)]
    narrow, wide = (
        encode_clip_vision(loaded(folders, name), Image(PIXELS), models=pool).last_hidden_state
        for name, pool in zip(("half.safetensors", "wide.safetensors"), pools, strict=True)
    )
    assert narrow.dtype == torch.float32 and torch.equal(narrow, wide)
    [(_, small)], [(_, large)] = (pool.resident for pool in pools)
    assert small < 0.7 * large


@pytest.mark.parametrize("crop", ["center", "none"])
def test_pictures_are_prepared_as_by_transformers_but_for_the_last_of_256_values(crop: Any):
    from nodes.maths.clip_pictures import clip_pictures

    squeezed = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    wanted = processor(**({} if crop == "center" else squeezed))
    # Pillow clips between its two passes, which this picture's overshoot does not reach.
    pixels = ((PIXELS * 0.5 + 0.25) * 255).round() / 255
    theirs = wanted(images=pillow(pixels), return_tensors="pt").pixel_values
    ours = clip_pictures(pixels, 32, crop == "center")
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() <= 1.01 / 255 / 0.26


@pytest.mark.parametrize("of", [picture_encoders.VIT_L, picture_encoders.VIT_H, picture_encoders.VIT_BIG_G])
@pytest.mark.parametrize("naming", [picture_encoders.transformers_shapes, picture_encoders.open_clip_shapes])
def test_every_weight_of_an_encoder_of_full_size_has_its_place(of: Any, naming: Any):
    """transformers' own class, built from the configuration, wants exactly what the file holds."""
    shapes = naming(of)
    plan = picture_encoder_plan(shapes)
    with torch.device("meta"):
        lib = cast(Any, transformers)
        wanted = lib.CLIPVisionModelWithProjection(lib.CLIPVisionConfig(**plan.config)).state_dict()
    places = {name: plan.places(name)[0] for name in wanted}
    assert all(place.shape(shapes[place.name]) == wanted[name].shape for name, place in places.items())
    left = set(shapes) - {place.name for place in places.values()}
    assert all(plan.unused(name) for name in left)


def test_cropping_sees_the_middle_alone(folders: Folders, pool: ModelPool):
    framed = PIXELS.clone()
    framed[:, :, :12] = framed[:, :, -12:] = 0
    encoder = loaded(folders, "folder")

    def same(crop: Any) -> bool:
        seen = [encode_clip_vision(encoder, Image(each[:, 4:36]), crop, models=pool) for each in (PIXELS, framed)]
        return torch.equal(seen[0].image_embeds, seen[1].image_embeds)

    assert same("center") and not same("none")


def test_a_picture_does_not_depend_on_its_neighbours_nor_on_its_opacity(folders: Folders, pool: ModelPool):
    encoder = loaded(folders, "file.safetensors")
    both = encode_clip_vision(encoder, Image(PIXELS), models=pool)
    opaque = torch.cat([PIXELS[1:], torch.zeros(1, 40, 64, 1)], -1)
    alone = encode_clip_vision(encoder, Image(opaque), models=pool)
    assert torch.equal(both.image_embeds[1:], alone.image_embeds)


def test_keys_change_with_the_file_and_the_crop_alone(folders: Folders):
    engine = Engine(folders, precision="fp32")

    def key(name: str = "folder", crop: Any = "center", ids: str = "") -> Any:
        with WorkflowBuilder() as workflow:
            picture = image_from_batch(empty_image(width=40, height=30), 0, 1)
            seen: Any = encode_clip_vision(load_clip_vision(clip_name=name), picture, crop)
        return engine.keys(engine.resolve(workflow, targets=[seen.step]))[seen.step]

    assert key() == key() != key(crop="none")
    assert len({key(name) for name in ("folder", "file.safetensors", "open.safetensors")}) == 3


def test_what_was_seen_is_kept_on_disk(folders: Folders, tmp_path: Path):
    from nodes.engine import usual_store

    there = Folders(data=folders.data, output=tmp_path)
    with WorkflowBuilder() as workflow:
        seen: Any = encode_clip_vision(load_clip_vision(clip_name="folder"), empty_image(width=40, height=30))
    runs = [Engine(there, precision="fp32", store=usual_store(there)).run(workflow, targets=[seen.step]) for _ in "ab"]
    first, second = (cast(ClipVisionOutput, run.checked().outputs[seen.step][0]) for run in runs)
    assert torch.equal(first.last_hidden_state, second.last_hidden_state)


def test_a_network_of_another_kind_is_refused_with_both_names(folders: Folders):
    with pytest.raises(ModelError, match=r"it is a text encoder \(transformers' names\), not a CLIP vision"):
        loaded(folders, "words.safetensors")
    with pytest.raises(ModelError, match="Did you mean 'file.safetensors'"):
        loaded(folders, "fill.safetensors")


def test_files_that_are_cut_off_or_not_whole_are_refused_with_the_reason(folders: Folders, pool: ModelPool):
    root, weights = folders.models("clip_vision"), dict(ENCODER.state_dict())
    (root / "cut.safetensors").write_bytes((root / "file.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="the file is cut off"):
        loaded(folders, "cut.safetensors")
    odd = weights | {"vision_model.embeddings.position_embedding.weight": torch.zeros(12, 32)}
    layouts.write_weights(root / "odd.safetensors", odd)
    with pytest.raises(ModelError, match="11 places for parts of a picture, which make no square"):
        loaded(folders, "odd.safetensors")
    del weights["vision_model.post_layernorm.bias"]
    layouts.write_weights(root / "less.safetensors", weights)
    with pytest.raises(ModelError, match=r"1 are missing: vision_model.post_layernorm.bias"):
        encode_clip_vision(loaded(folders, "less.safetensors"), Image(PIXELS), models=pool)


def test_inspecting_files_and_folders_says_what_they_are(folders: Folders):
    root = folders.models("clip_vision")
    found = [describe(root / name) for name in ("folder", "file.safetensors", "open.safetensors")]
    assert [each.title for each in found] == [
        "CLIP vision (transformers folder)",
        "CLIP vision (transformers' names)",
        "CLIP vision (OpenCLIP's names)",
    ]
    assert found[1].lines[0] == found[2].lines[0] == "ViT 32 wide/8 for 32 pixels"


def test_a_folder_of_another_kind_is_refused(folders: Folders):
    tiny_models.write_json(folders.models("clip_vision") / "other" / "config.json", {"model_type": "siglip"})
    with pytest.raises(ModelError, match="it is a siglip, not one of clip_vision_model, clip"):
        loaded(folders, "other")
