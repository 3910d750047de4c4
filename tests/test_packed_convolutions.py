"""Convolutions whose weights were put in order once."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Sequential

from nodes.packed_convolutions import PackedConv2d, pack_convolutions


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 4, 4), (2, 9, 6), (4, 16, 16), (1, 8, 8)])
def test_a_packed_convolution_is_the_same(dtype: torch.dtype, stride: int, bias: bool, size: tuple[int, int, int]):
    plain = Conv2d(320, 384, 3, stride=stride, padding=1, bias=bias).to(dtype)
    plain.weight.data = plain.weight.data.contiguous(memory_format=torch.channels_last)
    packed = Sequential(deepcopy(plain))
    pack_convolutions(packed)
    assert isinstance(packed[0], PackedConv2d)
    x = torch.randn(size[0], 320, *size[1:], dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours, theirs = packed(x), plain(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5 if dtype == torch.float32 else 0.02, atol=1e-5)
    assert size[0] == 1 or torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()


def test_what_a_packed_network_says_of_its_weights_is_what_it_said_before():
    network = Sequential(Conv2d(320, 384, 3), Conv2d(384, 320, 1), Conv2d(320, 4, 3))
    before = {name: (weight.shape, weight.dtype, weight.nbytes) for name, weight in network.named_parameters()}
    pack_convolutions(network)
    assert [type(layer) for layer in network] == [PackedConv2d, Conv2d, Conv2d]
    assert {name: (weight.shape, weight.dtype, weight.nbytes) for name, weight in network.named_parameters()} == before


def test_a_derivative_is_that_of_the_plain_convolution():
    plain = Conv2d(320, 384, 3, padding=1)
    packed = Sequential(deepcopy(plain))
    pack_convolutions(packed)
    gradients: list[Tensor] = []
    for layer in (plain, packed):
        x = torch.ones(2, 320, 4, 4).requires_grad_()
        torch.autograd.backward(layer(x).square().sum())
        assert x.grad is not None
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_where_torch_has_no_kernels_for_it_nothing_is_packed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.packed_convolutions.NEEDED", ("_no_such_kernel",))
    network = Sequential(Conv2d(320, 384, 3))
    pack_convolutions(network)
    assert type(network[0]) is Conv2d
