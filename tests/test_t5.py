"""T5's encoder: what its files are told by."""

import re
from dataclasses import replace
from math import prod

import pytest

from nodes.identification import Identified, Unrecognised, identify
from nodes.safetensors_header import TensorEntry
from tests import original_layouts as layouts
from tests import t5_models
from tests.original_layouts import CLIP_L, OPEN_G, Shapes, below


def entries(shapes: Shapes) -> dict[str, TensorEntry]:
    return {name: TensorEntry(dtype="F16", shape=shape, data_offsets=(0, 0)) for name, shape in shapes.items()}


def identified(shapes: Shapes) -> Identified:
    found = identify(entries(shapes))
    assert isinstance(found, Identified), str(found)
    return found


def test_the_fixture_has_as_many_parameters_as_the_published_encoder():
    assert sum(map(prod, t5_models.shapes().values())) == 4_762_310_656


def test_t5_is_told_by_its_names_and_shapes():
    found = identified(t5_models.shapes())
    assert str(found) == "text encoder (transformers' names)"
    assert (found.texts, found.notes) == (("",), ("T5-XXL",))
    assert identified(t5_models.shapes(512, 6, 8, 2048)).notes == ("T5, 512 wide",)


def test_a_whole_t5_is_told_by_its_encoder():
    decoder = {"decoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096), "lm_head.weight": (32128, 4096)}
    assert identified(t5_models.shapes() | decoder).notes == ("T5-XXL",)


def test_three_text_encoders_in_a_file_are_told_apart():
    low, large = replace(CLIP_L, projection=768), replace(OPEN_G, projection=1280)
    texts = {"clip_l": layouts.clip(low), "clip_g": layouts.clip(large), "t5xxl": t5_models.shapes()}
    whole: Shapes = {}
    for name, shapes in texts.items():
        whole |= below(f"text_encoders.{name}.transformer.", shapes)
    found = identified(whole)
    assert found.texts == tuple(f"text_encoders.{name}.transformer." for name in texts)
    assert found.notes == ("CLIP-L", "with a projection", "CLIP-G", "with a projection", "T5-XXL")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (1, 64)},
            "its positions have the shape .1, 64., which does not fit 4096 numbers",
        ),
        ({"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64)}, "it is a UMT5"),
    ],
)
def test_what_is_like_a_t5_is_refused_with_the_reason(more: Shapes, reason: str):
    found = identify(entries(t5_models.shapes() | more))
    assert isinstance(found, Unrecognised) and re.search(reason, found.reasons["text encoder"])
