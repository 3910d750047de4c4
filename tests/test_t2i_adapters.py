"""T2I-Adapters on small models, against diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import pytest
import torch

from graph.errors import RunFailed
from nodes.engine import Engine
from nodes.latents import empty_latent
from tests import control_models, original_layouts
from tests import control_scenes as scenes
from tests.control_scenes import checkpoint, control, near, piped, plainly, quiet, sampled, steered, tensor
from tests.small_models import SMALL

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

PIPELINES = {
    "full_adapter": ("SD 1", "StableDiffusionAdapterPipeline"),
    "light_adapter": ("SD 1 of three levels", "StableDiffusionAdapterPipeline"),
    "full_adapter_xl": ("SDXL", "StableDiffusionXLAdapterPipeline"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.data_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def engine(data: Path) -> Engine:
    return scenes.engine_for(data)


def adapter(data: Path, kind: str) -> tuple[str, Any]:
    """The name of an adapter in the original layout, and diffusers' network of the same weights."""
    weights = original_layouts.random_weights(control_models.ADAPTERS[kind][0], 4)
    control_models.write(data / "models" / "controlnet" / f"{kind}.safetensors", weights)
    return f"{kind}.safetensors", control_models.adapter(kind, weights)


@quiet
@pytest.mark.parametrize("kind", PIPELINES)
def test_every_layout_gives_one_picture_which_is_that_of_diffusers_pipeline(kind: str, data: Path, engine: Engine):
    family, pipeline = PIPELINES[kind]
    folder, (name, net) = checkpoint(data, family), adapter(data, kind)
    nets = data / "models" / "controlnet"
    control_models.write_module(nets / f"{kind} file.safetensors", net)
    control_models.write_module(nets / kind, net)
    ours = sampled(engine, family, steered(name, strength=0.6))
    for other in (f"{kind} file.safetensors", kind):
        assert torch.equal(sampled(engine, family, steered(other, strength=0.6)), ours)
    assert not torch.equal(sampled(engine, family, plainly), ours)
    # A drawing has one channel: the mean of the colours.
    picture = tensor().mean(1, keepdim=True) if net.config.in_channels == 1 else tensor()
    theirs = piped(pipeline, folder, {"adapter": net}, {"image": picture, "adapter_conditioning_scale": 0.6})
    near(ours * SMALL[family].scale, theirs)


def test_an_adapter_in_a_chain_with_a_controlnet_counts_beside_it(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    names = [adapter(data, "full_adapter")[0], control(data, "SD 1")[0]]

    def chain(order: list[str]) -> torch.Tensor:
        def steer(model: Any, positive: Any, negative: Any) -> Any:
            for name in order:
                positive, negative = steered(name)(model, positive, negative)
            return positive, negative

        return sampled(engine, "SD 1", steer)

    both = chain(names)
    near(chain(names[::-1]), both)
    for name in names:
        assert not torch.allclose(chain([name]), both, rtol=1e-2)


def test_a_latent_of_odd_sides_is_steered_too(data: Path, engine: Engine):
    for kind, (family, _) in PIPELINES.items():
        checkpoint(data, family)
        odd = sampled(engine, family, steered(adapter(data, kind)[0]), latent_image=lambda: empty_latent(72, 56))
        assert odd.shape == (1, 4, 7, 9) and odd.isfinite().all()


def test_an_adapter_for_another_family_is_refused_with_both_names(data: Path, engine: Engine):
    checkpoint(data, "SD 1")
    name, _ = adapter(data, "full_adapter_xl")
    with pytest.raises(RunFailed, match=r"full_adapter_xl.safetensors' \(SDXL\) does not fit the model 'SD 1"):
        sampled(engine, "SD 1", steered(name))
