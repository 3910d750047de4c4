"""Convolutions of float32 that multiply in bf16."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Sequential

from nodes.checkpoints import CHECKPOINTS
from nodes.engine import Engine
from nodes.halved_convolutions import HalvedConv2d, halve_convolutions
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.packed_layers import packable_types

pytestmark = pytest.mark.skipif(torch.bfloat16 not in packable_types(), reason="torch has no kernels for bf16 here")


@pytest.mark.parametrize("filed", [torch.float32, torch.float16])
def test_it_differs_by_the_rounding_of_its_factors_and_its_result(filed: torch.dtype):
    plain = Conv2d(64, 96, 3, padding=1).requires_grad_(False).to(filed)
    halved = Sequential(deepcopy(plain))
    plain = plain.float()
    halve_convolutions(halved)
    x = torch.randn(1, 64, 16, 16).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        ours, exact = halved(x), plain(x)
        rounded = torch.conv2d(x.bfloat16().float(), plain.weight.bfloat16().float(), plain.bias, padding=1)
    assert ours.dtype == torch.float32 and ours.stride() == exact.stride()
    assert torch.equal(ours, ours.bfloat16().float())
    torch.testing.assert_close(ours, rounded, rtol=2**-8, atol=1e-4)
    assert 0 < (ours - exact).square().mean().sqrt() / exact.std() < 2**-8


def test_weights_stay_as_they_are_until_they_are_needed():
    network = Sequential(Conv2d(16, 16, 3), Conv2d(16, 16, 3)).requires_grad_(False)
    halve_convolutions(network)
    with torch.no_grad():
        network[0](torch.ones(1, 16, 5, 5))
    assert [layer.weight.is_meta for layer in network if isinstance(layer, HalvedConv2d)] == [True, False]


def test_the_few_channels_of_a_picture_are_not_halved():
    network = Sequential(Conv2d(3, 128, 3), Conv2d(128, 3, 3), Conv2d(64, 64, 1), torch.nn.Linear(64, 64))
    halve_convolutions(network)
    assert not any(isinstance(layer, HalvedConv2d) for layer in network)


@pytest.mark.parametrize("used", [False, True])
def test_a_derivative_is_nearly_that_of_the_plain_layer(used: bool):
    plain = Conv2d(32, 64, 3, padding=1).requires_grad_(False)
    halved = Sequential(deepcopy(plain))
    halve_convolutions(halved)
    if used:
        with torch.no_grad():
            halved(torch.ones(1, 32, 4, 4))
    gradients: list[Tensor] = []
    for layer in (plain, halved):
        x = torch.ones(2, 32, 4, 4).requires_grad_()
        torch.autograd.backward(layer(x).square().sum())
        assert x.grad is not None
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.02, atol=0.02)


def test_a_large_autoencoder_decodes_with_it_unless_asked_for_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nodes.precision.SMALL_NETWORK", 0)
    monkeypatch.setattr("nodes.precision.cpu_has_bf16", lambda: True)
    vae = read_checkpoint(CHECKPOINTS.locate(Engine().folders, "loomlet"), "loomlet")[2]
    latent = torch.randn(1, vae.latent_channels, 8, 8)
    exact = ModelPool(precision="fp32", device="cpu").decode_latent(vae, latent)
    pool = ModelPool(precision="auto", device="cpu")
    near = pool.decode_latent(vae, latent)
    assert any(isinstance(layer, HalvedConv2d) for layer in pool.vae(vae).modules())
    assert 0 < (near - exact).square().mean().sqrt() < 0.02 * exact.std()
    assert torch.equal(near, pool.decode_latent(vae, latent))
