"""Upscale models: both architectures, every naming of their weights, and the refusals."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.problems import InvalidWorkflow
from graph.store import MemoryStore
from nodes import upscaling
from nodes.models import ModelPool
from nodes.upscale_networks import Architecture, Compact, Rrdb, identify
from tests.pickle_files import permission, pickled
from tests.running import Bench, any_image
from tests.tiny_models import save_weights, seed

FOURFOLD = Rrdb(features=8, growth=4, blocks=2, folded=1, doublings=2)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "models" / "upscale_models").mkdir(parents=True)
    return replace(Bench.below(tmp_path, upscaling), services={ModelPool: ModelPool("fp32")})


def weights_of(architecture: Architecture) -> dict[str, Tensor]:
    seed(3)
    return {name: tensor * 2 for name, tensor in architecture.build().state_dict().items()}


def write(bench: Bench, weights: dict[str, Tensor], name: str = "any.safetensors") -> None:
    save_weights(
        {key: tensor.contiguous() for key, tensor in weights.items()}, bench.folders.models("upscale_models") / name
    )


def as_real_esrgan(name: str) -> str:
    return re.sub(r"ups\.(\d)", lambda up: f"conv_up{int(up[1]) + 1}", name)


def as_esrgan(name: str) -> str:
    name = re.sub(r"ups\.(\d)", lambda up: f"upconv{int(up[1]) + 1}", name).replace("conv_body", "trunk_conv")
    return re.sub(r"^body\.", "RRDB_trunk.", name).replace("rdb", "RDB").replace("conv_hr", "HRconv")


def as_wrapped(name: str) -> str:
    return f"params_ema.{name}"


def as_first_release(name: str) -> str:
    places = {"conv_first": 0, "ups.0": 3, "ups.1": 6, "conv_hr": 8, "conv_last": 10}
    for role, place in places.items():
        name = name.replace(f"{role}.", f"model.{place}.")
    name = name.replace("conv_body.", "model.1.sub.2.")
    return re.sub(r"^body\.(\d)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0.", name)


def enlarged(bench: Bench, width: int = 9, height: int = 7, batch: int = 1, name: str = "any.safetensors") -> Tensor:
    with WorkflowBuilder() as workflow:
        model = upscaling.load_upscale_model(name)
        upscaling.upscale_image_with_model(model, any_image(width, height, batch))
    return bench.last(workflow).pixels


@pytest.mark.parametrize(
    "architecture",
    [
        FOURFOLD,
        replace(FOURFOLD, doublings=0),
        replace(FOURFOLD, doublings=3),
        replace(FOURFOLD, folded=2),
        replace(FOURFOLD, folded=4),
        Compact(features=6, layers=3, scale=2),
    ],
    ids=lambda architecture: f"{type(architecture).__name__} x{architecture.scale}",
)
def test_every_architecture_is_known_by_its_weights_and_scales(bench: Bench, architecture: Architecture):
    write(bench, weights_of(architecture))
    assert identify(weights_of(architecture)) == architecture
    assert enlarged(bench).shape == (1, 7 * architecture.scale, 9 * architecture.scale, 3)


@pytest.mark.parametrize("rename", [as_real_esrgan, as_esrgan, as_first_release, as_wrapped])
def test_weights_under_every_naming_give_the_same_picture(bench: Bench, rename: Any):
    write(bench, weights_of(FOURFOLD))
    expected = enlarged(bench)
    write(bench, {rename(name): tensor for name, tensor in weights_of(FOURFOLD).items()})
    assert torch.equal(enlarged(bench), expected)


def test_a_pickle_that_may_be_read_gives_the_same_picture(bench: Bench):
    weights = weights_of(FOURFOLD)
    write(bench, weights)
    with permission():
        pickled(bench.folders.models("upscale_models") / "old.pth", {"params": {}, "params_ema": weights})
        assert torch.equal(enlarged(bench, name="old.pth"), enlarged(bench))


def test_the_network_is_the_published_one():
    """Written down once more, as the paper draws it, with torch's functions alone."""
    weights, x = weights_of(FOURFOLD), torch.rand(1, 3, 6, 5)

    def conv(name: str, planes: Tensor) -> Tensor:
        return F.conv2d(planes, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def active(name: str, planes: Tensor) -> Tensor:
        return F.leaky_relu(conv(name, planes), 0.2)

    first = conv("conv_first", x)
    inside = first
    for block in range(2):
        outer = inside
        for dense in range(1, 4):
            name = f"body.{block}.rdb{dense}.conv"
            a = active(f"{name}1", inside)
            b = active(f"{name}2", torch.cat((inside, a), 1))
            c = active(f"{name}3", torch.cat((inside, a, b), 1))
            d = active(f"{name}4", torch.cat((inside, a, b, c), 1))
            inside = inside + 0.2 * conv(f"{name}5", torch.cat((inside, a, b, c, d), 1))
        inside = outer + 0.2 * inside
    features = first + conv("conv_body", inside)
    for up in range(2):
        features = active(f"ups.{up}", features.repeat_interleave(2, 2).repeat_interleave(2, 3))
    expected = conv("conv_last", active("conv_hr", features))
    network = FOURFOLD.build()
    network.load_state_dict(weights)
    torch.testing.assert_close(network(x), expected)


def test_a_compact_network_without_weights_is_a_plain_enlargement():
    network = Compact(features=4, layers=1, scale=3).build()
    for parameter in network.parameters():
        cast(Any, parameter.data).zero_()
    x = torch.rand(1, 3, 4, 5)
    torch.testing.assert_close(network(x), F.interpolate(x, scale_factor=3.0))


def test_a_large_picture_is_enlarged_in_tiles_without_a_seam(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    write(bench, weights_of(Compact(features=4, layers=1, scale=2)))
    whole = enlarged(bench, 150, 40, batch=2)
    monkeypatch.setattr(upscaling, "TILE", 64)
    bench.store = MemoryStore(1 << 28)
    tiled = enlarged(bench, 150, 40, batch=2)
    assert (tiled - whole).abs().max() < 0.05
    # The network looks three pixels around: further from where tiles end, nothing differs at all.
    far = [column for column in range(300) if all(abs(column / 2 - end) > 4 for end in (32, 64, 96, 128))]
    torch.testing.assert_close(tiled[:, :, far], whole[:, :, far])


def test_where_memory_does_not_do_tiles_become_smaller(monkeypatch: pytest.MonkeyPatch):
    sides: list[int] = []

    def greedy(tile: Tensor) -> Tensor:
        sides.append(tile.shape[-1])
        if tile.shape[-1] > 128:
            raise torch.OutOfMemoryError("none left")
        return tile

    planes = torch.rand(1, 3, 8, 300)
    torch.testing.assert_close(cast(Any, upscaling)._in_tiles_that_fit(greedy, planes, None), planes)
    assert sides[:2] == [300, 256] and max(sides[2:]) == 128


def test_a_file_of_something_else_is_refused_with_what_is_known(bench: Bench):
    write(bench, {"blocks.0.attention.weight": torch.zeros(4, 4)})
    with WorkflowBuilder() as workflow:
        upscaling.load_upscale_model("any.safetensors")
    failure = str(bench.run_last(workflow).failure)
    assert "it holds blocks.0.attention.weight" in failure and "ESRGAN's" in failure


def test_weights_that_do_not_fit_together_are_refused(bench: Bench):
    weights = weights_of(FOURFOLD)
    del weights["body.1.rdb2.conv3.bias"]
    write(bench, weights)
    with WorkflowBuilder() as workflow:
        upscaling.load_upscale_model("any.safetensors")
    assert "no upscale model that is known here" in str(bench.run_last(workflow).failure)


def test_damaged_files_are_refused(bench: Bench):
    (bench.folders.models("upscale_models") / "a.safetensors").write_bytes(b"x" * 40)
    with WorkflowBuilder() as workflow:
        upscaling.load_upscale_model("a.safetensors")
    assert "not a safetensors" in str(bench.run_last(workflow).failure)


def test_a_pickle_is_refused_before_anything_runs(bench: Bench):
    (bench.folders.models("upscale_models") / "a.pth").touch()
    with WorkflowBuilder() as workflow:
        upscaling.load_upscale_model("a.pth")
    with pytest.raises(InvalidWorkflow, match="this is a pickle.*--allow-pickle"):
        bench.run_last(workflow)
