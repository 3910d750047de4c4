"""Diffusion transformers, scaled down, answer as diffusers' own do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from graph.folders import Folders
from nodes.added_inputs import MissingInput, Told, told
from nodes.architectures import WrongArchitecture
from nodes.computation import compile_model
from nodes.denoiser import guided_denoiser
from nodes.grounded_prompts import Box, Grounding
from nodes.hypernetworks import load_hypernetwork
from nodes.merging import merge_models
from nodes.model_errors import ModelError, WrongPrompt
from nodes.models import ModelPool
from nodes.network_calls import PictureTooLarge
from nodes.network_patches import RecordedAttention
from nodes.precision import PrecisionPolicy
from nodes.single_files import read_single_checkpoint, read_single_unet
from nodes.unet_patches import free_u, hyper_tile, merge_tokens, perturbed_attention, self_attention
from nodes.values import Conditioning, Control, ControlNet, FlowLevels, Model, Prompt, Weights
from tests import original_layouts as layouts
from tests import small_transformers
from tests.small_transformers import CHANNELS, CONTEXT, POOLED, SMALL

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")
POOL = ModelPool("fp32", "cpu")
TIME = 0.625


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


def model(folder: Path, name: str) -> Model:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        small_transformers.write_network(path, SMALL[name].network)
    flux, guided = name.startswith("Flux"), name == "Flux dev"
    return Model(
        Weights(path, name, name),
        prediction="flow",
        latent_channels=CHANNELS,
        told="pooled and guidance" if guided else "pooled",
        architecture="Flux" if flux else "SD 3",
    )


def inputs(height: int = 6, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """A latent, the states of a text and its pooled state, of two pictures."""
    generator = torch.Generator().manual_seed(4)
    shapes = ((2, CHANNELS, height, width), (2, 5, CONTEXT), (2, POOLED))
    x, text, pooled = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, text, pooled


def theirs(name: str, x: Tensor, text: Tensor, pooled: Tensor, guidance: float = 3.5) -> Tensor:
    """What diffusers' network answers, called as its pipelines call it."""
    network: Any = small_transformers.network(SMALL[name].network)
    time = torch.full((2,), TIME)
    named: dict[str, Any] = {"encoder_hidden_states": text, "pooled_projections": pooled, "return_dict": False}
    with torch.no_grad():
        if not name.startswith("Flux"):
            return network(hidden_states=x, timestep=time * 1000, **named)[0]
        from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

        pipeline: Any = FluxPipeline
        height, width = x.shape[-2:]
        packed = pipeline._pack_latents(x, len(x), CHANNELS, height, width)
        ids = pipeline._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32)
        stated = torch.full((2,), guidance) if SMALL[name].network == SMALL["Flux dev"].network else None
        named |= {"img_ids": ids, "txt_ids": torch.zeros(text.shape[1], 3), "guidance": stated}
        answer = network(hidden_states=packed, timestep=time, **named)[0]
        return pipeline._unpack_latents(answer, height * 8, width * 8, 8)


def ours(asked: Model, x: Tensor, text: Tensor, pooled: Tensor, guidance: float | None = 3.5) -> Tensor:
    multiplier = 1 if asked.architecture == "Flux" else 1000
    stated = None if guidance is None else torch.full((len(x),), guidance)
    time = torch.full((len(x),), TIME * multiplier)
    return POOL.denoise_network(asked)(x, time, text, Told(pooled, guidance=stated))


@pytest.mark.parametrize("name", SMALL)
def test_a_network_answers_as_diffusers_does(name: str, folder: Path):
    answer, wanted = ours(model(folder, name), *inputs()), theirs(name, *inputs())
    assert wanted.std() > 0.1
    torch.testing.assert_close(answer, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["SD 3.5", "Flux dev"])
def test_odd_sides_are_continued_as_if_the_latent_were_repeated(name: str, folder: Path):
    x, text, pooled = inputs(5, 7)
    wanted = theirs(name, pad(x, (0, 1, 0, 1), mode="circular"), text, pooled)[..., :5, :7]
    torch.testing.assert_close(ours(model(folder, name), x, text, pooled), wanted, rtol=1e-4, atol=1e-5)


def test_guidance_counts_where_a_network_is_told_of_it(folder: Path):
    dev, schnell = model(folder, "Flux dev"), model(folder, "Flux schnell")
    torch.testing.assert_close(ours(dev, *inputs(), 7.0), theirs("Flux dev", *inputs(), 7.0), rtol=1e-4, atol=1e-5)
    answers = [ours(dev, *inputs(), guidance) for guidance in (3.5, 7.0, None)]
    assert not torch.allclose(answers[0], answers[1]) and not torch.allclose(answers[0], answers[2])
    assert torch.equal(ours(schnell, *inputs(), 3.5), ours(schnell, *inputs(), None))


def stated(model: Model, prompt: Prompt) -> Told:
    found = told(model, prompt, (2, CHANNELS, 4, 4), 2, negative=False)
    assert found is not None and found.pooled is not None
    return found


def test_a_network_is_told_what_its_prompt_states(folder: Path):
    dev, sd3 = model(folder, "Flux dev"), model(folder, "SD 3")
    prompt = Prompt(torch.zeros(1, 2, CONTEXT), torch.zeros(1, POOLED), guidance=2.5)
    guidance = stated(dev, prompt).guidance
    assert guidance is not None and torch.equal(guidance, torch.full((2,), 2.5))
    assert stated(dev, replace(prompt, guidance=None)).guidance is None and stated(sd3, prompt).guidance is None
    with pytest.raises(MissingInput, match="pooled state"):
        stated(dev, replace(prompt, pooled=None))


def test_times_are_told_apart_in_few_bits(folder: Path):
    """diffusers rounds them to the network's bits first, and then 0.625 and 0.6265 are the same in bf16."""
    asked, (x, text, pooled) = model(folder, "Flux schnell"), inputs()
    network = ModelPool("bf16", "cpu").denoise_network(asked)
    near, later = (network(x, torch.full((2,), time), text, Told(pooled)) for time in (0.625, 0.6265))
    assert not torch.equal(near, later)


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_prompts_of_other_widths_are_refused(name: str, folder: Path):
    x, text, pooled = inputs()
    with pytest.raises(WrongPrompt, match="states of width 8, where 48 is needed"):
        ours(model(folder, name), x, text[..., :8], pooled)
    with pytest.raises(WrongPrompt, match="a pooled state of width 8, where 32 is needed"):
        ours(model(folder, name), x, text, pooled[..., :8])


def test_a_picture_beyond_the_positions_is_refused(folder: Path):
    with pytest.raises(PictureTooLarge, match="up to 192 x 192 pixels, but this one has 64 x 208; choose a smaller"):
        ours(model(folder, "SD 3"), *inputs(26, 8))
    assert ours(model(folder, "SD 3"), *inputs(24, 24)).shape == (2, CHANNELS, 24, 24)


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_what_changes_a_unet_is_refused(name: str, folder: Path):
    transformer = model(folder, name)
    family = transformer.architecture
    for change in (free_u, hyper_tile, merge_tokens, perturbed_attention, self_attention):
        with pytest.raises(
            WrongArchitecture, match=rf"is for U-Nets, but .* a diffusion transformer \({family}\); take"
        ):
            change(transformer)
    with pytest.raises(WrongArchitecture, match="SelfAttentionGuidance"):
        POOL.denoise_network(replace(transformer, network_patches=(RecordedAttention(),)))


def test_pictures_and_boxes_that_steer_unets_are_refused(folder: Path):
    nowhere = Weights(folder, "no matter", "canny")
    box = Box(torch.zeros(1, 8), 0, 0, 4, 4)
    x, text, pooled = inputs()
    for steering, what in (
        ({"controls": (Control(ControlNet(nowhere), torch.zeros(1, 8, 8, 3)),)}, "the ControlNet 'canny'"),
        ({"grounding": Grounding(nowhere, (box,))}, "GLIGENTextBoxApply"),
    ):
        prompt = Conditioning((replace(Prompt(text[:1], pooled[:1]), **steering),))
        for name in ("SD 3", "Flux dev"):
            flow = replace(model(folder, name), levels=FlowLevels(3.0))
            with pytest.raises(WrongArchitecture, match=f"{what} is for U-Nets, but the network of '{name}'"):
                guided_denoiser(POOL, flow, prompt, None, 1.0, 2)(x, 0.5)


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_adapters_of_unets_are_refused(name: str, folder: Path):
    transformer, files = model(folder, name), Folders.below(folder)
    (folder / "models" / "hypernetworks").mkdir(parents=True, exist_ok=True)
    with pytest.raises(WrongArchitecture, match="HypernetworkLoader is for U-Nets"):
        load_hypernetwork(transformer, "any.safetensors", folders=files)


@pytest.mark.parametrize("name", list(SMALL))
def test_weights_of_eight_bits_are_read(name: str, folder: Path):
    weights = small_transformers.network_weights(SMALL[name].network)
    eight = {each: tensor.to(torch.float8_e4m3fn) for each, tensor in weights.items()}
    near = {each: tensor.float() for each, tensor in eight.items()}
    found: list[Tensor] = []
    for kind, tensors in (("eight", eight), ("wide", near)):
        path = layouts.write_weights(folder / f"{name} {kind}.safetensors", tensors)
        changed = replace(model(folder, name), weights=Weights(path, path.name, path.name))
        found.append(ours(changed, *inputs()))
    assert torch.equal(*found)


@pytest.mark.parametrize("ends", [("scale_weight", "scale_input"), ("weight_scale", "comfy_quant")])
@pytest.mark.parametrize("name", list(SMALL))
def test_weights_of_eight_bits_have_scales_of_their_own(name: str, ends: tuple[str, str], folder: Path):
    weights = small_transformers.network_weights(SMALL[name].network)
    scaled, wide, told = weights.copy(), weights.copy(), {"scaled_fp8": torch.zeros(2)}
    for at, (each, tensor) in enumerate(weights.items()):
        if tensor.ndim == 2:
            scale = torch.tensor(0.01 * (at + 1))
            scaled[each] = (tensor / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
            wide[each] = scaled[each].float() * scale
            base = each.removesuffix(".weight")
            told |= {f"{base}.{ends[0]}": scale, f"{base}.{ends[1]}": torch.ones(1)}
    found: list[Tensor] = []
    for kind, tensors in (("scaled", scaled | told), ("unscaled", wide)):
        path = layouts.write_weights(folder / f"{name} {kind} {ends[0]}.safetensors", tensors)
        changed = replace(read_single_unet(path, path.name), told=model(folder, name).told)
        found.append(ours(changed, *inputs()))
        found.append(ours(merge_models(changed, changed, 0.5), *inputs()))
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=1e-4, atol=1e-4)


def test_where_a_network_alone_belongs_is_told(folder: Path):
    path = model(folder, "SD 3").weights.path
    with pytest.raises(
        ModelError, match=r"not a checkpoint. Move it to diffusion_models/, and load it with UNETLoader."
    ):
        read_single_checkpoint(path, path.name, Folders.below(folder))


def test_scales_of_blocks_are_refused(folder: Path):
    weights = small_transformers.network_weights(SMALL["Flux dev"].network)
    weights["img_in.weight"] = weights["img_in.weight"].to(torch.float8_e4m3fn)
    path = layouts.write_weights(folder / "blocks.safetensors", weights | {"img_in.scale_weight": torch.ones(4)})
    with pytest.raises(ModelError, match=r"img_in.scale_weight has the shape \[4\]: one number for all of a weight"):
        ours(replace(model(folder, "Flux dev"), weights=Weights(path, "blocks", "blocks")), *inputs())


@pytest.mark.parametrize("name", ["SD 3", "Flux dev"])
def test_a_compiled_network_answers_the_same(name: str, folder: Path):
    transformer = model(folder, name)
    compiled = replace(compile_model(transformer).network_patches[0], backend="eager")
    answer = ours(replace(transformer, network_patches=(compiled,)), *inputs())
    torch.testing.assert_close(answer, ours(transformer, *inputs()), rtol=1e-4, atol=1e-5)


def test_transformers_avoid_fp16_on_their_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.precision.gpu_has_bf16", lambda: True)
    assert PrecisionPolicy("auto", "cuda").transformer(2_000_000_000).dtype == "bf16"
    assert PrecisionPolicy("fp16", "cuda").transformer(2_000_000_000).dtype == "fp16"
    assert not PrecisionPolicy("auto", "cuda").transformer(2_000_000_000).channels_last
