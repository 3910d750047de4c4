"""Layers whose weights lie in the order that a CPU's kernels want."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Linear, Module, Sequential

from nodes.materialise import DTYPES, UNET, load_network
from nodes.model_folders import UNET_STEM
from nodes.packed_layers import (
    DirectLinear,
    PackedConv2d,
    PackedLinear,
    PackedPointwiseConv2d,
    Packing,
    Scratch,
    compute_directly,
    pack,
    packable_types,
    packing,
)
from nodes.precision import Precision, PrecisionName
from nodes.values import Weights
from tests.original_layouts import write_weights

TYPES = packable_types()


def _packed(layer: Module, how: Callable[[Module], Packing | None]) -> Module:
    layer = deepcopy(layer)
    weight = next(layer.parameters()).detach()
    found = how(layer)
    assert found
    found.take(Scratch().holding(weight, found.dtype))
    return layer


def _in_float32(layer: Module) -> Packing | None:
    return packing(layer, torch.float32)


def _rounded(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 0.02


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 4, 4), (2, 9, 6), (4, 16, 16), (1, 8, 8)])
def test_a_packed_convolution_is_the_same(dtype: torch.dtype, stride: int, bias: bool, size: tuple[int, int, int]):
    plain = Conv2d(320, 384, 3, stride=stride, padding=1, bias=bias).to(dtype)
    plain.weight.data = plain.weight.data.contiguous(memory_format=torch.channels_last)
    packed = _packed(plain, lambda layer: packing(layer, dtype))
    assert isinstance(packed, PackedConv2d)
    x = torch.randn(size[0], 320, *size[1:], dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours, theirs = packed(x), plain(x)
    torch.testing.assert_close(ours, theirs, rtol=_rounded(dtype), atol=1e-5)
    assert size[0] == 1 or torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(320,), (1, 320), (154, 320), (2, 64, 320), (0, 320)])
def test_a_packed_linear_layer_is_the_same(dtype: torch.dtype, bias: bool, size: tuple[int, ...]):
    plain = Linear(320, 384, bias=bias).to(dtype)
    packed = _packed(plain, lambda layer: packing(layer, dtype))
    assert isinstance(packed, PackedLinear)
    x = torch.randn(size, dtype=dtype)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x), rtol=_rounded(dtype), atol=1e-5 if dtype.itemsize > 2 else 0.02)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(7,), (154, 7), (2, 5, 7)])
def test_a_direct_linear_layer_is_the_same(bias: bool, size: tuple[int, ...]):
    plain = Linear(7, 11, bias=bias)
    direct = Sequential(deepcopy(plain))
    compute_directly(direct)
    assert isinstance(direct[0], DirectLinear)
    x = torch.randn(size)
    with torch.inference_mode():
        torch.testing.assert_close(direct(x), plain(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_packed_convolution_of_single_pixels_is_the_same(dtype: torch.dtype, bias: bool, layout: torch.memory_format):
    plain = Conv2d(320, 384, 1, bias=bias).to(dtype)
    packed = _packed(plain, lambda layer: packing(layer, dtype))
    assert isinstance(packed, PackedPointwiseConv2d)
    x = torch.randn(2, 320, 6, 9, dtype=dtype).to(memory_format=layout)
    with torch.inference_mode():
        ours, theirs = packed(x), plain(x)
    torch.testing.assert_close(ours, theirs, rtol=_rounded(dtype), atol=1e-5 if dtype.itemsize > 2 else 0.02)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_what_a_packed_layer_says_of_its_weights_is_what_it_said_before():
    layers = [(Conv2d(320, 384, 3), PackedConv2d), (Conv2d(320, 384, 1), PackedPointwiseConv2d)]
    for layer, packed in (*layers, (Linear(320, 384), PackedLinear)):
        before = {name: (weight.shape, weight.dtype, weight.nbytes) for name, weight in layer.named_parameters()}
        after = _packed(layer, _in_float32)
        assert type(after) is packed
        assert {name: (each.shape, each.dtype, each.nbytes) for name, each in after.named_parameters()} == before


@pytest.mark.parametrize(
    "layer",
    [
        *(Conv2d(320, 4, 3), Conv2d(64, 64, 3), Linear(64, 640), Conv2d(320, 4, 1), Conv2d(320, 320, 1, stride=2)),
        *(Conv2d(320, 320, 1, padding=1), Conv2d(320, 320, 3, groups=2), Conv2d(320, 320, 5)),
    ],
)
def test_other_layers_are_left_as_they_are(layer: Module):
    assert packing(layer, torch.float32) is packing(layer, torch.bfloat16) is packing(layer, torch.float16) is None


@pytest.mark.parametrize(
    ("plain", "how", "exact"),
    [
        (Conv2d(320, 384, 3, padding=1), _in_float32, 1e-4),
        (Conv2d(320, 384, 1), _in_float32, 1e-4),
        (Linear(320, 384), _in_float32, 1e-4),
        (Linear(320, 384), None, 1e-4),
    ],
)
def test_a_derivative_is_that_of_the_plain_layer(
    plain: Module, how: Callable[[Module], Packing | None] | None, exact: float
):
    other = Sequential(_packed(plain, how) if how else deepcopy(plain))
    compute_directly(other)
    gradients: list[Tensor] = []
    for layer in (plain, other):
        x = (
            torch.linspace(-1, 1, 320).expand(2, 3, 320).clone()
            if isinstance(plain, Linear)
            else torch.ones(2, 320, 4, 4)
        )
        x.requires_grad_()
        torch.autograd.backward(layer(x).square().sum())
        assert x.grad is not None
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=exact, atol=exact)


def test_torch_compile_takes_linear_layers_as_it_can():
    """Of the operators for weights in order it takes those alone whose weights are constants."""
    called: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        called.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    network = Sequential(Linear(320, 384), Linear(384, 7)).requires_grad_(False)
    pack(network, torch.float32)
    assert [type(layer) for layer in network] == [PackedLinear, DirectLinear]
    x = torch.randn(5, 320)
    with torch.no_grad():
        compiled = cast(Any, torch).compile(network, backend=backend)
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-5, atol=1e-6)
    assert any("packed_linear" in each for each in called) and not any("pointwise" in each for each in called)


def test_where_torch_has_no_kernels_for_it_nothing_is_packed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.packed_layers.NEEDED", ("_no_such_kernel",))
    assert packing(Conv2d(320, 384, 3), torch.float32) is None
    network = Sequential(Linear(320, 384))
    compute_directly(network)
    assert type(network[0]) is Linear


@pytest.mark.parametrize(
    ("filed", "dtype", "kind"),
    [
        (torch.float32, "fp32", DirectLinear),
        (torch.bfloat16, "bf16", Linear),
        (torch.float16, "bf16", PackedLinear),
        (torch.float16, "fp32", PackedLinear),
    ],
)
def test_what_needs_no_copy_stays_shared_with_other_processes(
    filed: torch.dtype, dtype: PrecisionName, kind: type[Linear], tmp_path: Path
):
    plain = Linear(320, 384)
    own = {"0.weight": plain.weight.detach().to(filed), "0.bias": plain.bias.detach().to(filed)}
    write_weights(tmp_path / f"{UNET_STEM}.safetensors", own)
    (tmp_path / "config.json").write_text("{}")

    def build(config: Mapping[str, Any]) -> Module:
        return Sequential(Linear(320, 384))

    weights = Weights(tmp_path, "some", "some")
    network = load_network(weights, UNET, build, Precision(dtype, True, ""), torch.device("cpu"))
    layer = cast(Sequential, network)[0]
    assert type(layer) is kind
    is_mapped = str(tmp_path) in Path("/proc/self/maps").read_text()
    assert is_mapped == (kind is not PackedLinear)
    x = torch.randn(9, 320)
    with torch.inference_mode():
        given = x.to(DTYPES[dtype])
        torch.testing.assert_close(layer(given).float(), plain(x), rtol=0.02, atol=0.02)


def test_memory_for_weights_is_used_again():
    scratch = Scratch()
    large = scratch.holding(torch.ones(4, 5), torch.bfloat16)
    small = scratch.holding(torch.full((3, 2), 2.0), torch.bfloat16)
    assert large.data_ptr() == small.data_ptr() and torch.equal(small, torch.full((3, 2), 2.0, dtype=torch.bfloat16))
    kernels = torch.arange(16.0).view(2, 2, 2, 2)
    held = scratch.holding(kernels, torch.float32)
    assert torch.equal(held, kernels) and held.is_contiguous(memory_format=torch.channels_last)
