import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nodes import precision
from nodes.model_errors import ModelError, WrongPrompt
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.precision import PrecisionPolicy
from nodes.values import Clip, Model, Vae
from tests import tiny_models

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_checkpoint(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture(scope="module")
def parts(made: Path) -> tuple[Model, Clip, Vae]:
    return read_checkpoint(made, "tiny")


@pytest.fixture
def pool() -> ModelPool:
    return ModelPool(precision="fp32", device="cpu")


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    tiny_models.seed(1)
    return torch.randn(2, 4, 8, 8), torch.tensor([500.0, 3.25]), torch.randn(2, 77, tiny_models.WIDTH)


def test_the_network_predicts_what_diffusers_predicts(
    made: Path, parts: tuple[Model, Clip, Vae], pool: ModelPool
) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    theirs = cast(Any, UNet2DConditionModel).from_pretrained(made / "unet", local_files_only=True)
    x, timestep, context = inputs()
    with torch.no_grad():
        expected = theirs(x, timestep, context).sample
    torch.testing.assert_close(pool.denoise_network(parts[0])(x, timestep, context), expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_of_another_text_encoder_is_refused(parts: tuple[Model, Clip, Vae], pool: ModelPool) -> None:
    x, timestep, context = inputs()
    with pytest.raises(WrongPrompt, match="of width 16, where 32 is needed; encode it with the CLIP that belongs to"):
        pool.denoise_network(parts[0])(x, timestep, context[..., :16])


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_fewer_bits_predict_nearly_the_same_in_float32(
    name: Any, parts: tuple[Model, Clip, Vae], pool: ModelPool
) -> None:
    small = ModelPool(precision=name, device="cpu")
    exact, rough = (each.denoise_network(parts[0])(*inputs()) for each in (pool, small))
    assert rough.dtype == torch.float32 and rough.is_contiguous()
    assert 0 < float((rough - exact).abs().max() / exact.abs().max()) < 0.03
    kernel = next(weight for weight in small.unet(parts[0]).parameters() if weight.ndim == 4)
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_pictures_are_encoded_and_decoded_as_by_diffusers(
    made: Path, parts: tuple[Model, Clip, Vae], pool: ModelPool
) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    theirs = cast(Any, AutoencoderKL).from_pretrained(made / "vae", local_files_only=True)
    tiny_models.seed(1)
    pixels = torch.rand(3, 3, 32, 16) * 2 - 1
    with torch.no_grad():
        latent = theirs.encode(pixels).latent_dist.mode()
        picture = theirs.decode(latent).sample
    ours = pool.encode_pixels(parts[2], pixels)
    assert ours.shape == (3, 4, 4, 2)
    torch.testing.assert_close(ours, latent, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pool.decode_latent(parts[2], latent), picture, rtol=1e-4, atol=1e-5)


def test_a_picture_does_not_depend_on_its_batch(parts: tuple[Model, Clip, Vae], pool: ModelPool) -> None:
    samples = torch.randn(3, 4, 2, 2)
    assert torch.equal(pool.decode_latent(parts[2], samples)[1:2], pool.decode_latent(parts[2], samples[1:2]))


def test_text_states_are_those_of_transformers(made: Path, parts: tuple[Model, Clip, Vae], pool: ModelPool) -> None:
    from transformers.models.clip.modeling_clip import CLIPTextModel

    theirs = cast(Any, CLIPTextModel).from_pretrained(made / "text_encoder", local_files_only=True).eval()
    clip = parts[1]
    tokenizer = pool.tokenizer(clip)
    ids = torch.tensor([[tokenizer.start, 5, 9, tokenizer.end, *[tokenizer.pad] * 73]])
    with torch.no_grad():
        output = theirs(input_ids=ids, output_hidden_states=True)
        norm = getattr(theirs, "text_model", theirs).final_layer_norm
        skipped = norm(output.hidden_states[-2])
    hidden, pooled = pool.encode_text(clip, ids)
    torch.testing.assert_close(hidden, output.last_hidden_state)
    torch.testing.assert_close(pooled, output.pooler_output)
    hidden, pooled = pool.encode_text(replace(clip, layer=-2), ids)
    torch.testing.assert_close(hidden, skipped)
    torch.testing.assert_close(pooled, output.pooler_output)
    torch.testing.assert_close(pool.encode_text(replace(clip, layer=-20), ids)[0], output.last_hidden_state)


def test_half_precision_files_run_in_float32(tmp_path: Path, pool: ModelPool, parts: tuple[Model, Clip, Vae]) -> None:
    model = read_checkpoint(tiny_models.write_checkpoint(tmp_path / "half", half=True), "half")[0]
    near, exact = (pool.denoise_network(each)(*inputs()) for each in (model, parts[0]))
    torch.testing.assert_close(near, exact, rtol=0.02, atol=0.02)


def test_weights_are_loaded_once_for_many_threads(
    parts: tuple[Model, Clip, Vae], pool: ModelPool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "latentloom.models")
    barrier, found = Barrier(4), list[object]()

    def ask() -> None:
        barrier.wait()
        found.append(pool.unet(parts[0]))

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(module) for module in found}) == 1
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "tiny U-Net runs in fp32, channels-last (asked for with --precision)"
    assert len(messages) == 2 and messages[1].startswith("loaded tiny U-Net: ")


def test_the_least_recently_used_go_when_room_is_needed(parts: tuple[Model, Clip, Vae], pool: ModelPool) -> None:
    model, clip, vae = parts
    pool.unet(model)
    pool.vae(vae)
    pool.text_encoder(clip)
    pool_of_less = ModelPool(precision="fp32", device="cpu", max_bytes=sum(nbytes for _, nbytes in pool.resident) - 1)
    pool_of_less.unet(model)
    pool_of_less.vae(vae)
    pool_of_less.unet(model)
    pool_of_less.text_encoder(clip)
    assert [name for name, _ in pool_of_less.resident] == ["tiny U-Net", "tiny text encoder"]


def test_a_model_larger_than_the_budget_still_runs(parts: tuple[Model, Clip, Vae]) -> None:
    pool = ModelPool(precision="fp32", device="cpu", max_bytes=1)
    pool.unet(parts[0])
    pool.vae(parts[2])
    assert [name for name, _ in pool.resident] == ["tiny VAE"]


def test_memory_is_freed_on_demand(parts: tuple[Model, Clip, Vae], pool: ModelPool) -> None:
    pool.unet(parts[0])
    pool.vae(parts[2])
    assert pool.free(bytes_needed=0) == 0
    (_, unet), (_, vae) = pool.resident
    assert pool.free(pool.max_bytes - vae) == unet
    assert pool.free() == vae
    assert pool.resident == []


def edit(name: str, change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = {key: tensor.clone() for key, tensor in tiny_models.load_weights(folder / name).items()}
        change(weights)
        tiny_models.save_weights(weights, folder / name)

    return spoil


def narrower(folder: Path) -> None:
    text = (folder / "unet/config.json").read_text()
    (folder / "unet/config.json").write_text(text.replace("8,\n    16", "4,\n    8"))


def no_network(folder: Path) -> None:
    text = (folder / "unet/config.json").read_text()
    (folder / "unet/config.json").write_text(text.replace("CrossAttnDownBlock2D", "NoSuchBlock"))


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "shape": (
        edit(UNET, lambda weights: weights.update({"conv_in.weight": torch.zeros(5, 4, 3, 3)})),
        r"1 have another shape: conv_in.weight is \[5, 4, 3, 3\] instead of \[8, 4, 3, 3\]",
    ),
    "missing": (edit(UNET, lambda weights: weights.pop("conv_in.bias")), "1 are missing: conv_in.bias"),
    "unknown": (
        edit(UNET, lambda weights: weights.update({"lora": torch.zeros(1)})),
        "1 have no place in the network: lora",
    ),
    "all shapes": (narrower, r"have another shape: .* and \d+ more\. Take config\.json"),
    "no network": (no_network, "the configuration does not describe a network"),
}


@pytest.mark.parametrize("case", BAD)
def test_weights_that_do_not_fit_are_refused(case: str, made: Path, tmp_path: Path, pool: ModelPool) -> None:
    spoil, message = BAD[case]
    folder = shutil.copytree(made, tmp_path / "bad")
    spoil(folder)
    model = read_checkpoint(folder, "bad")[0]
    with pytest.raises(ModelError, match=message):
        pool.unet(model)
    assert pool.resident == []


def test_names_of_older_files_are_understood(
    made: Path, tmp_path: Path, parts: tuple[Model, Clip, Vae], pool: ModelPool
) -> None:
    def old_text(weights: dict[str, Tensor]) -> None:
        renamed = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in weights.items()}
        weights.clear()
        weights.update(renamed | {"text_model.embeddings.position_ids": torch.arange(77)[None]})

    def old_attention(weights: dict[str, Tensor]) -> None:
        for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
            for side in ("encoder", "decoder"):
                for kind in ("weight", "bias"):
                    tensor = weights.pop(f"{side}.mid_block.attentions.0.{new}.{kind}")
                    kernel = tensor[..., None, None] if kind == "weight" else tensor
                    weights[f"{side}.mid_block.attentions.0.{old}.{kind}"] = kernel.contiguous()

    folder = shutil.copytree(made, tmp_path / "old")
    edit(TEXT, old_text)(folder)
    edit(VAE, old_attention)(folder)
    _, clip, vae = read_checkpoint(folder, "old")
    samples = torch.randn(1, 4, 2, 2)
    assert torch.equal(pool.decode_latent(vae, samples), pool.decode_latent(parts[2], samples))
    ids = torch.arange(77)[None]
    assert torch.equal(pool.encode_text(clip, ids)[0], pool.encode_text(parts[1], ids)[0])


def test_precision_is_chosen_by_what_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    auto = PrecisionPolicy()
    assert (auto.unet(860_000_000).dtype, auto.unet(860_000_000).channels_last) == ("bf16", True)
    assert auto.unet(6_000_000).dtype == "fp32" and "6.0 M" in auto.unet(6_000_000).reason
    assert (auto.vae(84_000_000).dtype, auto.text_encoder(700_000_000).dtype) == ("fp32", "fp32")
    assert [auto.vae(size).bf16_convolutions for size in (84_000_000, 1_000_000)] == [True, False]
    assert not PrecisionPolicy("fp32").vae(84_000_000).bf16_convolutions
    assert PrecisionPolicy("bf16").unet(6_000_000).dtype == "bf16"
    assert PrecisionPolicy("auto", "cuda").unet(6_000_000).dtype == "fp16"
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    assert auto.unet(860_000_000).dtype == "fp32" and "no bf16" in auto.unet(860_000_000).reason
