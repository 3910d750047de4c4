"""Number formats of single models, and compiled networks."""

import logging
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from nodes.checkpoints import load_checkpoint
from nodes.computation import compile_model, compute_in
from nodes.engine import usual_folders
from nodes.models import ModelPool
from nodes.network_patches import Compiled
from nodes.patched_network import patched
from nodes.values import Model
from tests import tiny_models
from tests.adapter_files import noise


@pytest.fixture(scope="module")
def model() -> Model:
    return load_checkpoint("loomlet", usual_folders()).MODEL


@pytest.fixture(scope="module")
def pool() -> ModelPool:
    return ModelPool("fp32", "cpu")


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_a_model_computes_in_the_format_that_it_is_given(pool: ModelPool, model: Model, dtype: Any):
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    assert {weight.dtype for weight in pool.unet(compute_in(model, dtype)).parameters()} == {wanted}
    assert {weight.dtype for weight in pool.unet(model).parameters()} == {torch.float32}


def test_the_default_takes_a_choice_back(model: Model):
    assert model == compute_in(compute_in(model, "bf16"), "default") != compute_in(model, "bf16")


class Small(Module):
    """As much of a network as a patched view needs."""

    config: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return torch.nn.functional.silu(self.conv(x)) * scale


@pytest.fixture
def network() -> Small:
    tiny_models.seed(3)
    return Small()


def test_a_compiled_network_computes_the_same_and_its_cost_is_told_for_every_size(
    network: Small, caplog: pytest.LogCaptureFixture
):
    compiled = patched(network, (Compiled("aot_eager"),))
    assert patched(network, (Compiled("aot_eager"),)) is compiled is not network
    with caplog.at_level(logging.INFO, "latentloom.models"), torch.inference_mode():
        for side in (8, 8, 16):
            x = noise(1, 4, side, side, seed=1)
            torch.testing.assert_close(compiled(x, scale=2.0), network(x, scale=2.0))
    told = [record.getMessage() for record in caplog.records if record.name == "latentloom.models"]
    assert [each.partition(" with")[0] for each in told] == [
        "first step at 1 x 4 x 8 x 8",
        "first step at 1 x 4 x 16 x 16",
    ]
    assert "with aot_eager, compilation included: " in told[0]


def test_what_cannot_be_compiled_runs_as_it_is_with_one_warning(network: Small, caplog: pytest.LogCaptureFixture):
    def fails(graph: object, inputs: object) -> Any:
        raise RuntimeError("no compiler here")

    cast(Any, torch)._dynamo.register_backend(fails, "fails")
    x = noise(1, 4, 8, 8, seed=1)
    for backend, why in (("fails", "no compiler here"), ("none such", "none such")):
        caplog.clear()
        compiled = patched(network, (Compiled(backend),))
        for _ in range(3):
            assert torch.equal(compiled(x), network(x))
        (warning,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
        assert f"cannot be compiled with {backend} and runs as it is" in warning and why in warning


def test_what_is_wrong_with_a_call_is_not_taken_for_a_failed_compilation(network: Small):
    with pytest.raises(RuntimeError, match="channels"):
        patched(network, (Compiled("eager"),))(noise(1, 7, 8, 8, seed=1))


def test_the_node_compiles_with_the_backend_that_it_is_given(model: Model):
    assert compile_model(model).network_patches == (Compiled("inductor"),)
    assert compile_model(model, "cudagraphs") != compile_model(model)
