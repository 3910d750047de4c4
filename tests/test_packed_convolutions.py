"""Convolutions whose weights were put in order once."""

from copy import deepcopy

import pytest
import torch
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
