from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.nn import Module

from nodes.control_layout import controlnet_plan
from nodes.identification import Identified, Unrecognised, identify
from nodes.picture_encoder_layout import picture_encoder_plan
from nodes.safetensors_header import TensorEntry, read_header
from nodes.text_layout import text_plan
from nodes.unet_layout import unet_plan
from nodes.vae_layout import vae_plan
from nodes.weight_places import NetworkPlan, Shapes, shapes_below
from tests import original_layouts as layouts
from tests import picture_encoders
from tests.ip_adapter_files import PROJECTIONS
from tests.small_transformers import SMALL, network_shapes
from tests.transformer_layouts import FLUX_DEV, FLUX_SCHNELL, SD35_LARGE, flux, sd3

FAMILIES = layouts.families()


def entries(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorEntry]:
    return {name: TensorEntry(dtype="F16", shape=shape, data_offsets=(0, 0)) for name, shape in shapes.items()}


def identified(shapes: Mapping[str, tuple[int, ...]]) -> Identified:
    found = identify(entries(shapes))
    assert isinstance(found, Identified), str(found)
    return found


def numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(map(prod, shapes.values()))


def test_the_fixtures_have_as_many_parameters_as_the_published_models():
    assert [numbers(layouts.unet(each)) for each in (layouts.SD1, layouts.SD2, layouts.SDXL)] == [
        859_520_964,
        865_910_724,
        2_567_463_684,
    ]
    assert (numbers(layouts.vae()), len(layouts.vae())) == (83_653_863, 248)
    assert numbers(layouts.clip(layouts.CLIP_L)) == 123_060_480
    assert [numbers(layouts.controlnet(each)) for each in (layouts.SD1, layouts.SDXL)] == [361_279_120, 1_251_014_160]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_is_told_by_its_names_and_shapes(name: str):
    found = identified(FAMILIES[name] | {"betas": (1000,), "model_ema.decay": ()})
    assert str(found) == f"{name} (original layout)" and found.notes == ()
    assert len(found.texts) == (2 if name.startswith("SDXL ") and "refiner" not in name else 1)


def test_parts_alone_are_told_with_and_without_a_prefix():
    unet = layouts.unet(layouts.SDXL)
    assert str(identified(unet)) == "SDXL U-Net (original layout)"
    assert identified(layouts.below("model.diffusion_model.", unet)).unet == "model.diffusion_model."
    assert str(identified(layouts.vae())) == "VAE (original layout)"
    assert identified(layouts.below("first_stage_model.", layouts.vae())).vae == "first_stage_model."
    assert identified(layouts.clip(layouts.CLIP_L)).notes == ("CLIP-L", "without a projection")
    assert identified(layouts.clip(layouts.OPEN_G)).notes == ("CLIP-G", "with a projection")
    assert str(identified(layouts.open_clip(layouts.OPEN_H))) == "text encoder (OpenCLIP's names)"
    whole = FAMILIES["SD 1 checkpoint"]
    without = {name: shape for name, shape in whole.items() if not name.startswith("first_stage")}
    assert identified(without).notes == ("without a VAE",)


OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "kohya": (
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)},
        "SD 1 LoRA (kohya's names)",
    ),
    "PEFT": (
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 2048)},
        "SDXL LoRA (diffusers' or PEFT's names)",
    ),
    "LoKr": ({"lora_unet_mid_block.lokr_w1": (4, 4)}, "LoRA (kohya's names)"),
    "ControlNet": (
        layouts.below("control_model.", layouts.controlnet(layouts.SD2)),
        "SD 2 ControlNet (original layout)",
    ),
    "ControlNet alone": (layouts.controlnet(layouts.SDXL), "SDXL ControlNet (original layout)"),
    "T2I-Adapter": (layouts.full_adapter(channels=1), "SD 1 T2I-Adapter (original layout)"),
    "T2I-Adapter of SDXL": (layouts.full_adapter(factor=16), "SDXL T2I-Adapter (original layout)"),
    "light T2I-Adapter": (layouts.light_adapter(), "SD 1 T2I-Adapter (original layout)"),
    "embedding": ({"emb_params": (8, 768)}, "SD 1 embedding (vectors of 768 numbers)"),
    "embedding of SDXL": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "SDXL embedding (vectors for CLIP-L and CLIP-G)"),
    "vision": (picture_encoders.transformers_shapes(picture_encoders.VIT_H), "CLIP vision (transformers' names)"),
    "OpenCLIP's vision": (picture_encoders.open_clip_shapes(picture_encoders.VIT_H), "CLIP vision (OpenCLIP's names)"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_told_too(case: str):
    shapes, expected = OTHERS[case]
    assert str(identified(shapes)) == expected


ENCODERS = {
    "ViT-L/14 for 224 pixels": (picture_encoders.VIT_L, (16, "quick_gelu", 303_966_208)),
    "ViT-L/14 for 336 pixels": (replace(picture_encoders.VIT_L, places=577), (16, "quick_gelu", 304_293_888)),
    "ViT-H/14 for 224 pixels": (picture_encoders.VIT_H, (16, "gelu", 632_076_800)),
    "ViT-bigG/14 for 224 pixels": (picture_encoders.VIT_BIG_G, (16, "gelu", 1_844_907_264)),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("naming", [picture_encoders.transformers_shapes, picture_encoders.open_clip_shapes])
def test_picture_encoders_of_full_size_are_told_by_their_shapes(name: str, naming: Callable[[Any], Shapes]):
    encoder, (heads, activation, expected) = ENCODERS[name]
    shapes = naming(encoder)
    config = picture_encoder_plan(shapes).config
    assert identified(shapes).notes == (name,)
    assert (config["num_attention_heads"], config["hidden_act"]) == (heads, activation)
    assert sum(prod(shape) for each, shape in shapes.items() if "position_ids" not in each) == expected


DISTILLED: dict[str, tuple[tuple[str, ...], list[int], str]] = {
    "small": (("DownBlock2D", "DownBlock2D", "DownBlock2D"), [0, 0, 0], "UNetMidBlock2DCrossAttn"),
    "mid": (("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), [0, 0, 1], "UNetMidBlock2DCrossAttn"),
    "bare": (("DownBlock2D", "DownBlock2D", "DownBlock2D"), [1, 1, 1], "UNetMidBlock2D"),
}
"""ControlNets that were distilled for SDXL: their levels, how many transformers stand there, and the middle."""


@pytest.mark.parametrize("name", DISTILLED)
def test_distilled_controlnets_are_told_by_their_shapes(name: str):
    from diffusers.models.controlnets.controlnet import ControlNetModel

    levels, depths, middle = DISTILLED[name]
    config = {
        "down_block_types": levels, "transformer_layers_per_block": depths, "mid_block_type": middle,
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    with torch.device("meta"):
        shapes = shapes_in(cast(Any, ControlNetModel)(**config))
        found = shapes_in(cast(Any, ControlNetModel).from_config(controlnet_plan(shapes).config))
    assert found == shapes and str(identified(shapes)) == "SDXL ControlNet (diffusers layout)"


def shapes_in(module: Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


TRANSFORMERS: dict[str, tuple[dict[str, tuple[int, ...]], str, tuple[str, ...]]] = {
    "SD 3": (sd3(SD35_LARGE), "SD 3", ()),
    "Fill": (flux(replace(FLUX_DEV, inputs=384)), "Flux inpainting", ("told a guidance, as dev is",)),
    "Depth": (flux(replace(FLUX_DEV, inputs=128)), "Flux pix2pix", ("told a guidance, as dev is",)),
    "dev": (flux(FLUX_DEV), "Flux", ("told a guidance, as dev is",)),
    "schnell": (flux(FLUX_SCHNELL), "Flux", ("told no guidance, as schnell is",)),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_diffusion_transformers_are_told_by_their_names_and_shapes(name: str):
    shapes, family, notes = TRANSFORMERS[name]
    for prefix in ("", "diffusion_model.", "model.diffusion_model."):
        found = identified(layouts.below(prefix, shapes))
        assert str(found) == f"{family} diffusion transformer (original layout)"
        assert (found.unet, found.notes) == (prefix, notes)
    vae = layouts.below("vae.", layouts.vae(latent=16))
    assert (
        str(identified(layouts.below("model.diffusion_model.", shapes) | vae))
        == f"{family} checkpoint (original layout)"
    )


@pytest.mark.parametrize("name", SMALL)
def test_any_shapes_in_files_of_transformers_are_survived(name: str):
    shapes = network_shapes(SMALL[name].network)
    identified(shapes)
    for each in shapes:
        for shape in ((), (0,), (3,), (1, 1), (7, 3), (1, 1, 1, 1, 1)):
            identify(entries(shapes | {each: shape}))
        identify(entries({other: shape for other, shape in shapes.items() if other != each}))


def test_autoencoders_of_sixteen_channels_are_told():
    assert str(identified(layouts.vae(latent=16))) == "VAE (original layout)"
    found = identify(entries(layouts.vae(latent=8)))
    assert isinstance(found, Unrecognised) and "have 8 channels; supported are 4 and 16" in found.reasons["VAE"]


def test_what_is_not_recognised_is_told_why():
    found = identify(entries({"a": (3,), "b": (1,), "c": (9, 9)}))
    assert isinstance(found, Unrecognised)
    assert "not a U-Net or checkpoint: there is neither input_blocks.0.0.weight nor down_blocks.0" in str(found)
    assert "not an embedding: it has 3 tensors" in str(found)
    assert identify({}) == Unrecognised({"model": "the file holds no tensors"})


WHY: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "depth": (layouts.unet(replace(layouts.SD2, inputs=5)), "takes 5 channels; known are 4 (plain)"),
    "as unCLIP": (layouts.unet(replace(layouts.SD1, told=2048)), "is told numbers beside the text, as unCLIP's is"),
    "too few": (layouts.unet(replace(layouts.SDXL, told=1024)), "told 1024 numbers"),
    "Chroma": (
        layouts.below(
            "model.diffusion_model.",
            {
                "double_blocks.0.img_attn.proj.weight": (1, 1),
                "single_blocks.0.linear1.weight": (1, 1),
                "distilled_guidance_layer.in_proj.weight": (1, 1),
            },
        ),
        "it is Chroma",
    ),
    "relative": ({"double_blocks.0.img_attn.proj.weight": (1, 1)}, "it is a relative of Flux"),
    "Fill": (
        flux(replace(FLUX_DEV, inputs=96)),
        "takes 96 channels; known are 64 (plain), 384 (inpaint",
    ),
    "half": (
        {name: shape for name, shape in layouts.unet(layouts.SD1).items() if "middle" not in name},
        "at any level or in the middle",
    ),
    "no hint": (layouts.below("control_model.", layouts.unet(layouts.SD1)), "there is neither input_blocks.0.0.weight"),
    "no shape": (layouts.unet(layouts.SD1) | {"input_blocks.0.0.weight": ()}, "has the shape []"),
}


@pytest.mark.parametrize("case", WHY)
def test_a_model_that_is_nearly_one_is_told_why_it_is_not(case: str):
    shapes, why = WHY[case]
    found = identify(entries(shapes))
    assert isinstance(found, Unrecognised) and why in found.reasons["U-Net or checkpoint"]


def test_a_part_of_a_controlnet_is_told_what_it_lacks():
    shapes = layouts.below("control_model.", layouts.controlnet(layouts.SD1))
    half = {name: shape for name, shape in shapes.items() if "input_blocks.0." not in name}
    found = identify(entries(half))
    assert isinstance(found, Unrecognised) and found.reasons["ControlNet"] == "there is no conv_in.weight"
    odd = identify(entries(layouts.full_adapter(channels=2)))
    assert isinstance(odd, Unrecognised) and "it takes 128 channels; known are 1 x 8 x 8" in odd.reasons["T2I-Adapter"]


def test_any_names_and_shapes_are_survived():
    control = layouts.controlnet(layouts.SD1)
    for name in ("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "input_hint_block.2.weight"):
        for shape in ((), (0,), (1, 1, 1, 1, 1)):
            identify(entries(control | {name: shape, "task_embedding": shape}))
            identify(entries(layouts.full_adapter() | {"body.1.block1.weight": shape}))
    for name in FAMILIES["SD 1 checkpoint"]:
        for shape in ((), (0,), (1, 1, 1, 1, 1)):
            identify(entries({name: shape}))


def files_of_picture_prompts() -> Iterator[dict[str, tuple[int, ...]]]:
    """Picture encoders, IP-Adapters and GLIGENs, as small as they can be."""
    encoder = picture_encoders.Encoder(64, 1, 8, 8, 14, 5)
    yield picture_encoders.transformers_shapes(encoder)
    yield picture_encoders.open_clip_shapes(encoder)
    keys = {f"ip_adapter.1.to_{kind}_ip.weight": (32, 768) for kind in "kv"}
    for projection in PROJECTIONS.values():
        yield layouts.below("image_proj.", projection(64)) | keys
    positions = {"position_net.null_positive_feature": (64,), "position_net.linears.4.weight": (64, 512)}
    yield positions | {"middle_block.1.transformer_blocks.0.fuser.linear.weight": (32, 64)}


def test_any_shapes_in_files_of_picture_prompts_are_survived():
    for file in files_of_picture_prompts():
        identified(file)
        for name in file:
            for shape in ((), (0,), (3,), (1, 1), (7, 3), (1, 1, 1, 1, 1)):
                identify(entries(file | {name: shape}))
            identify(entries({each: shape for each, shape in file.items() if each != name}))


def test_files_of_full_size_are_told_by_their_headers(tmp_path: Path):
    path = layouts.write_header(tmp_path / "xl.safetensors", FAMILIES["SDXL checkpoint"])
    assert str(identify(read_header(path))) == "SDXL checkpoint (original layout)"


def networks(found: Identified) -> Iterator[tuple[str, Callable[[Shapes], NetworkPlan], Callable[[Any], Module]]]:
    """The parts of a checkpoint: where their names start, how they are planned, and how they are built."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

    assert found.unet is not None and found.vae is not None
    yield found.unet, unet_plan, cast(Any, UNet2DConditionModel).from_config
    yield found.vae, vae_plan, cast(Any, AutoencoderKL).from_config
    for text in found.texts:
        yield text, text_plan, lambda config: CLIPTextModelWithProjection(CLIPTextConfig(**config))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_of_the_networks_has_its_place(name: str):
    """diffusers' and transformers' own classes, built from the configurations, want exactly what the file holds."""
    for prefix, plan_of, build in networks(identified(FAMILIES[name])):
        shapes = shapes_below(entries(FAMILIES[name]), prefix)
        plan = plan_of(shapes)
        with torch.device("meta"):
            wanted = build(plan.config).state_dict()
        used = set[str]()
        for target, tensor in wanted.items():
            place = next((place for place in plan.places(target) if place.name in shapes), None)
            if place is None:
                assert target == "text_projection.weight"
                continue
            shape = place.shape(shapes[place.name])
            assert shape == tensor.shape or shape == (*tensor.shape, 1, 1), target
            used.add(place.name)
        assert {name for name in shapes if name not in used and not plan.unused(name)} == set()
