"""Weights of 16 bits that stay as their file has them, in networks that compute in float32."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Embedding, GroupNorm, LayerNorm, Linear, Module, Sequential

from nodes.narrow_weights import compute_in
from nodes.open_weights import OpenWeights
from nodes.packed_layers import compute_directly
from tests.original_layouts import write_weights

LAYERS: list[tuple[Module, Tensor]] = [
    (Linear(5, 7), torch.randn(3, 5)),
    (Linear(5, 7, bias=False), torch.randn(3, 5)),
    (Conv2d(4, 6, 3, padding=1, stride=2), torch.randn(2, 4, 9, 9)),
    (Conv2d(4, 6, 3, bias=False), torch.randn(2, 4, 9, 9).to(memory_format=torch.channels_last)),
    (Embedding(11, 4), torch.tensor([[0, 10, 3]])),
    (LayerNorm(5), torch.randn(3, 5)),
    (GroupNorm(2, 4), torch.randn(2, 4, 3, 3)),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("at", range(len(LAYERS)))
def test_a_layer_with_fewer_bits_computes_what_it_would_with_its_weights_widened(at: int, dtype: torch.dtype):
    layer, given = LAYERS[at]
    narrow = Sequential(deepcopy(layer)).to(dtype)
    wide = deepcopy(narrow).float().requires_grad_(False)
    compute_in(narrow.requires_grad_(False), torch.float32)
    compute_directly(wide)
    result = narrow(given)
    assert result.dtype == torch.float32
    assert torch.equal(result, wide(given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e5m2, torch.float32])
@pytest.mark.parametrize("at", [0, 1, 4, 5])
def test_a_layer_computes_in_bf16_whatever_its_weights_are_kept_in(at: int, dtype: torch.dtype):
    layer, given = LAYERS[at]
    kept = Sequential(deepcopy(layer)).to(dtype).requires_grad_(False)
    halved = deepcopy(kept).to(torch.bfloat16)
    compute_in(kept if dtype != torch.float32 else kept.to(torch.bfloat16), torch.bfloat16)
    numbers = given if at == 4 else given.bfloat16()
    assert torch.equal(kept(numbers), halved(numbers))


def test_what_was_read_does_not_stay_mapped_unless_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.open_weights.MAPPED_BYTES", 3_000_000)
    weights = {f"{at}": torch.full((1_000_000,), at, dtype=torch.uint8) for at in range(20)}
    path = write_weights(tmp_path / "many.safetensors", weights)
    files = OpenWeights()
    kept = files.tensor(path, "2")
    for at in range(20):
        assert files.tensor(path, f"{at}")[7] == at
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("many.safetensors")]
    assert len(mapped) <= 2 and kept[999_999] == 2
