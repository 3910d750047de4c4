"""T5's encoder: its states are transformers', whatever its weights are kept in."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.precision import PrecisionPolicy
from nodes.t5_encoder import t5_states
from nodes.values import Clip, Weights
from tests import t5_models
from tests.original_layouts import write_weights

IDS = torch.tensor([[4, 5, 6, 1, 0, 0, 0, 0], [7, 1, 0, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("t5")
    t5_models.write_encoder(made)
    return made


@pytest.fixture(scope="module")
def pool() -> ModelPool:
    return ModelPool(precision="fp32", device="cpu")


def clip(path: Path, part: str = "") -> Clip:
    weights = Weights(path, f"{path}{part}", path.name, part)
    return Clip(weights, weights, tower="T5")


def theirs(folder: Path, weights: dict[str, Tensor] | None = None) -> Any:
    """What transformers makes of the ids, by the folder's weights or by others."""
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    module: Any = cast(Any, T5EncoderModel).from_pretrained(folder, local_files_only=True).eval()
    if weights:
        module.load_state_dict(weights, strict=False)
    with torch.no_grad():
        return module(IDS, output_hidden_states=True)


def filed(tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> tuple[Path, dict[str, Tensor]]:
    """A file of the weights in a type, and the same numbers in float32."""
    narrow = {name: tensor.to(dtype) for name, tensor in weights.items()}
    path = write_weights(tmp_path / "t5xxl.safetensors", narrow)
    return path, {name: tensor.float() for name, tensor in narrow.items()}


def test_a_folder_gives_the_states_of_transformers(folder: Path, pool: ModelPool):
    assert torch.equal(t5_states(pool, clip(folder), IDS), theirs(folder).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_stay_as_they_are_filed_and_are_widened_in_use(dtype: torch.dtype, folder: Path, tmp_path: Path):
    path, wide = filed(tmp_path, t5_models.write_encoder(tmp_path / "own"), dtype)
    pool = ModelPool(precision="fp32", device="cpu")
    states = t5_states(pool, clip(path), IDS)
    torch.testing.assert_close(states, theirs(folder, wide).last_hidden_state)
    module: Any = pool.text_encoder(clip(path))
    kept = {module.shared.weight.dtype, *(p.dtype for n, p in module.named_parameters() if ".DenseReluDense." in n)}
    assert kept == {dtype} and module.encoder.embed_tokens is module.shared


@pytest.mark.parametrize("end", ["scale_weight", "weight_scale"])
def test_numbers_of_eight_bits_may_have_scales(end: str, folder: Path, tmp_path: Path):
    weights = t5_models.write_encoder(tmp_path / "own")
    scales = {name: tensor.abs().max() / 448 for name, tensor in weights.items() if ".SelfAttention." in name}
    narrow = {name: (weights[name] / scale).to(torch.float8_e4m3fn) for name, scale in scales.items()}
    beside = {f"{name.removesuffix('weight')}{end}": scale for name, scale in scales.items()}
    mark = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    path = write_weights(tmp_path / "t5xxl_scaled.safetensors", weights | narrow | beside | mark)
    wide = {name: tensor.float() * scales[name] for name, tensor in narrow.items()}
    states = t5_states(ModelPool(precision="fp32", device="cpu"), clip(path), IDS)
    torch.testing.assert_close(states, theirs(folder, wide).last_hidden_state)
    assert not torch.equal(states, theirs(folder).last_hidden_state)


def test_the_numbers_inside_a_layer_may_be_larger_than_16_bits_hold(folder: Path, tmp_path: Path):
    large = {
        name: tensor * (300 if "wi_" in name else 0.001 if "wo" in name else 1)
        for name, tensor in t5_models.write_encoder(tmp_path / "own").items()
    }
    path, wide = filed(tmp_path, large, torch.float16)
    states = t5_states(ModelPool(precision="fp32", device="cpu"), clip(path), IDS)
    torch.testing.assert_close(states, theirs(folder, wide).last_hidden_state)


def test_an_earlier_layer_goes_through_the_final_norm(folder: Path, pool: ModelPool):
    expected = theirs(folder)
    module: Any = pool.text_encoder(clip(folder))
    states = t5_states(pool, replace(clip(folder), layer=-2), IDS)
    assert torch.equal(states, module.encoder.final_layer_norm(expected.hidden_states[-2]))
    assert torch.equal(t5_states(pool, replace(clip(folder), layer=-20), IDS), expected.last_hidden_state)


def test_a_tokenizer_of_another_model_is_refused(folder: Path, pool: ModelPool):
    with pytest.raises(ModelError, match="knows 60 words, and its tokenizer has number 60. Take both from one model"):
        t5_states(pool, clip(folder), torch.tensor([[4, 60]]))


def test_a_part_of_a_whole_checkpoint_is_read_by_its_prefix(folder: Path, tmp_path: Path, pool: ModelPool):
    prefix = "text_encoders.t5xxl.transformer."
    weights = t5_models.write_encoder(tmp_path / "own")
    copied = weights | {"encoder.embed_tokens.weight": weights["shared.weight"].clone()}
    path = write_weights(tmp_path / "whole.safetensors", {f"{prefix}{name}": w for name, w in copied.items()})
    assert torch.equal(t5_states(pool, clip(path, prefix), IDS), theirs(folder).last_hidden_state)


def test_a_large_text_encoder_computes_in_bf16_where_that_is_fast(monkeypatch: pytest.MonkeyPatch):
    for fast in (True, False):
        monkeypatch.setattr("nodes.precision.cpu_has_bf16", lambda fast=fast: fast)
        large, small = (PrecisionPolicy("auto", "cpu").text_encoder(size) for size in (4_762_310_656, 694_659_840))
        assert (large.dtype, large.as_filed) == ("bf16" if fast else "fp32", True)
        assert small.dtype == "fp32" and PrecisionPolicy("fp32", "cpu").text_encoder(10**10).dtype == "fp32"


def test_in_bf16_the_states_are_about_those_of_float32(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.precision.cpu_has_bf16", lambda: True)
    monkeypatch.setattr("nodes.precision.LARGE_TEXT_ENCODER", 0)
    path, _ = filed(tmp_path, t5_models.write_encoder(tmp_path / "own"), torch.float16)
    pool = ModelPool(precision="auto", device="cpu")
    states, exact = t5_states(pool, clip(path), IDS), theirs(folder).last_hidden_state
    module: Any = pool.text_encoder(clip(path))
    assert states.dtype == torch.float32 and module.shared.weight.dtype == torch.float16
    assert 0 < (states - exact).abs().mean() < 0.02 * exact.abs().mean()
