"""Networks whose weights are rounded to 8 bits, as UNETLoader is asked to."""

from collections.abc import Iterable
from pathlib import Path
from shutil import copytree
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import Linear, Module

from graph.folders import Folders
from nodes.added_inputs import Told
from nodes.checkpoints import ROUNDED, WeightType, load_unet
from nodes.materialise import EIGHTHS, byte_count
from nodes.models import ModelPool
from nodes.narrow_weights import like
from nodes.precision import PrecisionChoice
from nodes.values import Model
from tests import small_transformers, tiny_models
from tests.original_layouts import write_weights

FILE = "diffusion_pytorch_model.safetensors"
TYPES: list[WeightType] = ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A U-Net, and the same with weights that were rounded before, in each of the types."""
    made = Folders.below(tmp_path_factory.mktemp("data"))
    place = made.models("diffusion_models")
    unet = tiny_models.write_checkpoint(tmp_path_factory.mktemp("made")) / "unet"
    weights: dict[str, Tensor] = cast(Any, safetensors.torch).load_file(unet / FILE)
    weights["conv_in.bias"][0] = 1e6  # too large for both
    kinds = {name: (dtype, torch.finfo(dtype).max) for name, dtype in EIGHTHS.items()}
    rounded = {
        name: {key: weight.clamp(-most, most).to(dtype).float() for key, weight in weights.items()}
        for name, (dtype, most) in kinds.items()
    }
    for name, changed in {"plain": weights, **rounded}.items():
        copytree(unet, place / name)
        write_weights(place / name / FILE, changed)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    tiny_models.seed(1)
    return torch.randn(2, 4, 8, 8), torch.tensor([500.0, 3.25]), torch.randn(2, 77, tiny_models.WIDTH)


def predicted(model: Model, precision: PrecisionChoice = "fp32") -> Tensor:
    return ModelPool(precision, "cpu").denoise_network(model)(*inputs())


@pytest.mark.parametrize("kind", TYPES)
def test_it_predicts_what_one_predicts_that_was_rounded_before(kind: WeightType, folders: Folders):
    ours = predicted(load_unet("plain", kind, folders))
    theirs = predicted(load_unet(str(ROUNDED[kind]), "default", folders))
    assert ours.isfinite().all() and not torch.equal(ours, predicted(load_unet("plain", folders=folders)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_large_layers_keep_a_quarter_of_the_bytes(folders: Folders):
    pool = ModelPool("fp32", "cpu")
    plain, rounded = (pool.unet(load_unet("plain", kind, folders)) for kind in ("default", TYPES[0]))
    assert byte_count(rounded) < 0.3 * byte_count(plain)
    layers = [layer for layer in cast("Iterable[Module]", rounded.modules()) if isinstance(layer, Linear)]
    assert {layer.weight.dtype for layer in layers} == {torch.float8_e4m3fn}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_put_into_it_is_of_the_type_that_it_computes_in(precision: Any, folders: Folders):
    pool = ModelPool(precision, "cpu")
    network = pool.unet(load_unet("plain", "fp8_e5m2", folders))
    assert like(network).dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert predicted(load_unet("plain", "fp8_e5m2", folders), precision).isfinite().all()


@pytest.mark.parametrize("name", ["SD 3.5", "Flux dev"])
def test_a_transformer_predicts_what_one_predicts_that_was_rounded_before(name: str, tmp_path: Path):
    folders, small = Folders.below(tmp_path), small_transformers.SMALL[name].network
    place, weights = folders.models("diffusion_models"), small_transformers.network_weights(small)
    write_weights(place / "plain.safetensors", weights)
    rounded = {key: weight.to(torch.float8_e4m3fn).float() for key, weight in weights.items()}
    write_weights(place / "rounded.safetensors", rounded)
    x, times = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(4)), torch.tensor([0.5])
    context, pooled = torch.ones(1, 5, small_transformers.CONTEXT), torch.ones(1, small_transformers.POOLED)

    def answered(file: str, kind: WeightType = "default") -> Tensor:
        network = ModelPool("fp32", "cpu").denoise_network(load_unet(file, kind, folders))
        return network(x, times, context, Told(pooled, guidance=torch.tensor([3.5])))

    torch.testing.assert_close(answered("plain.safetensors", "fp8_e4m3fn"), answered("rounded.safetensors"))
    assert not torch.equal(answered("plain.safetensors"), answered("rounded.safetensors"))
