"""Networks that are kept in the form in which this machine computes with them."""

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Linear, Module

from graph.folders import Folders
from graph.leases import Leases
from nodes.added_inputs import Told
from nodes.checkpoints import load_unet
from nodes.loras import load_lora_for_model
from nodes.merging import merge_models
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.packed_layers import PackedConv2d, PackedLinear, PackedPointwiseConv2d, packable_types, packing
from nodes.precision import PrecisionChoice
from nodes.prepared_networks import PREPARED_BYTES, PreparedNetworks
from nodes.values import Model
from nodes.weights_in_order import is_known, numbers_of, order_of, ordered
from tests import small_transformers, tiny_models
from tests.commands import latentloom
from tests.original_layouts import write_weights
from tests.small_transformers import CONTEXT, POOLED, SMALL

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

LEAST = 1000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_checkpoint(tiny_models.write_checkpoint(tmp_path_factory.mktemp("made") / "tiny"), "tiny")[0]


@pytest.fixture
def kept(tmp_path: Path) -> PreparedNetworks:
    return PreparedNetworks(tmp_path / "prepared", least_bytes=LEAST)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    tiny_models.seed(1)
    return torch.randn(2, 4, 8, 8), torch.tensor([500.0, 3.25]), torch.randn(2, 77, tiny_models.WIDTH)


def pool(kept: PreparedNetworks | None, precision: PrecisionChoice = "fp32") -> ModelPool:
    return ModelPool(precision, "cpu", prepared=kept)


def predicted(kept: PreparedNetworks | None, model: Model, precision: PrecisionChoice = "fp32") -> Tensor:
    """What a process that has just started predicts. Its networks are on the disk then."""
    made = pool(kept, precision).denoise_network(model)(*inputs())
    if kept is not None:
        shown(kept)
    return made


def shown(kept: PreparedNetworks) -> list[Path]:
    """The networks that are there, once no draft is left."""
    until = time.monotonic() + 60
    while any(path.suffix == ".tmp" for path, _ in kept.files()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return [path for path, _ in kept.files()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_was_prepared_predicts_the_same_bits(
    precision: PrecisionChoice, kept: PreparedNetworks, model: Model, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "latentloom.models")
    expected = predicted(None, model, precision)
    assert torch.equal(predicted(kept, model, precision), expected)
    assert torch.equal(predicted(kept, model, precision), expected)
    assert sum("prepared in" in message for message in caplog.messages) == 1
    assert len(shown(kept)) == 1


def test_its_layers_are_in_order_and_lie_in_the_file(kept: PreparedNetworks, model: Model):
    predicted(kept, model)
    network = pool(kept).unet(model)
    kinds = [type(layer) for layer in network.modules()]
    assert min(map(kinds.count, (PackedConv2d, PackedLinear, PackedPointwiseConv2d))) > 0
    plain = [each for each in network.parameters() if each.is_cpu]
    ordered = [numbers_of(layer.packed) for layer in network.modules() if isinstance(layer, PackedLinear)]
    assert all(in_file(plain + ordered, kept))


def test_each_form_of_a_network_is_one_of_its_own(kept: PreparedNetworks, model: Model):
    for precision in ("fp32", "bf16", "fp32"):
        predicted(kept, model, precision)
    assert len(shown(kept)) == 2


def in_file(weights: Iterable[Tensor], kept: PreparedNetworks) -> list[bool]:
    """Which of these lie in the one file that is there."""
    (file,) = shown(kept)
    places = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    spans = [tuple(int(end, 16) for end in place[0].split("-")) for place in places]
    return [any(start <= weight.data_ptr() < end for start, end in spans) for weight in weights]


def test_of_a_network_with_a_lora_the_rest_is_the_files(kept: PreparedNetworks, model: Model, tmp_path: Path):
    touched = "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = {
        f"unet.{touched}.lora_{end}.weight": torch.full(shape, 0.1) for end, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    write_weights(tmp_path / "models" / "loras" / "some.safetensors", lora)
    folders = Folders.below(tmp_path)
    for strength in (0.5, 1.0):
        changed = load_lora_for_model(model, "some.safetensors", strength, folders)
        assert torch.equal(predicted(kept, changed), predicted(None, changed))
        assert not torch.equal(predicted(kept, changed), predicted(kept, model))
    network = pool(kept).unet(changed)
    named = cast("Iterable[tuple[str, Module]]", network.named_modules())
    layers = {name: layer for name, layer in named if isinstance(layer, PackedLinear)}
    where = dict(zip(layers, in_file([numbers_of(layer.packed) for layer in layers.values()], kept), strict=True))
    assert [name for name, is_there in where.items() if not is_there] == [touched]


def test_a_lora_for_several_weights_in_one_counts_as_well(kept: PreparedNetworks, tmp_path: Path):
    folders = Folders.below(tmp_path)
    small_transformers.write_network(folders.models("diffusion_models") / "f.safetensors", SMALL["Flux dev"].network)
    flux, fused = load_unet("f.safetensors", folders=folders), "lora_unet_double_blocks_0_img_attn_qkv"
    lora = {f"{fused}.lora_down.weight": torch.full((2, 64), 0.1), f"{fused}.lora_up.weight": torch.full((192, 2), 0.1)}
    write_weights(folders.models("loras") / "some.safetensors", lora)
    changed = load_lora_for_model(flux, "some.safetensors", 1.0, folders)
    asked = (torch.ones(1, 16, 4, 4), torch.tensor([0.5]), torch.ones(1, 5, CONTEXT), Told(torch.ones(1, POOLED)))
    ours, theirs = (pool(each).denoise_network(changed)(*asked) for each in (kept, None))
    assert shown(kept) and torch.equal(ours, theirs)
    assert not torch.equal(ours, pool(kept).denoise_network(flux)(*asked))


def test_of_a_network_that_is_another_nothing_is_taken(kept: PreparedNetworks, model: Model):
    changed = merge_models(model, model, 0.5)
    assert torch.equal(predicted(kept, changed), predicted(None, changed))
    assert not shown(kept)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def scribbled(file: Path) -> None:
    file.write_bytes(b"\xff" * file.stat().st_size)


def without_a_weight(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"conv_in.bias"', b'"conv_in.boas"'))


def in_no_order(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"@order", b"@ordre"))


@pytest.mark.parametrize("damage", [cut, emptied, scribbled, without_a_weight, in_no_order])
def test_a_damaged_file_is_made_again(
    damage: Callable[[Path], None], kept: PreparedNetworks, model: Model, caplog: pytest.LogCaptureFixture
):
    expected = predicted(kept, model)
    (file,) = shown(kept)
    whole = file.read_bytes()
    file.unlink()  # not the one that the first pool has mapped
    file.write_bytes(whole)
    damage(file)
    assert torch.equal(predicted(kept, model), expected)
    assert "is made again" in caplog.text
    assert torch.equal(predicted(kept, model), expected)
    assert shown(kept) == [file] and file.read_bytes() == whole


def test_what_was_not_used_for_longest_makes_way(kept: PreparedNetworks, model: Model):
    predicted(kept, model)
    (first,) = shown(kept)
    small = replace(kept, max_bytes=first.stat().st_size + LEAST)
    predicted(small, model, "bf16")
    (left,) = shown(small)
    assert left != first
    predicted(small, model, "bf16")
    assert shown(small) == [left]


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 0}, {"least_bytes": PREPARED_BYTES}, {"folder": Path("/proc/prepared")}]
)
def test_without_room_a_network_is_read_into_memory(wrong: dict[str, object], kept: PreparedNetworks, model: Model):
    nowhere = replace(kept, **wrong)  # pyright: ignore[reportArgumentType]  # one field of its type
    assert torch.equal(predicted(nowhere, model), predicted(None, model))
    assert not shown(nowhere)


@contextmanager
def largest_file(nbytes: int) -> Generator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fails_while_it_is_written_costs_nothing_but_the_file(
    kept: PreparedNetworks, model: Model, caplog: pytest.LogCaptureFixture
):
    with largest_file(20_000):
        made = predicted(kept, model)
    assert torch.equal(made, predicted(None, model))
    assert "no network can be kept there" in caplog.text and not shown(kept)


def test_while_another_writes_it_it_is_read_into_memory(kept: PreparedNetworks, model: Model):
    predicted(kept, model)
    (file,) = shown(kept)
    file.unlink()
    claim = Leases(kept.folder / "leases").claim(bytes.fromhex(file.stem))
    assert claim
    made = predicted(kept, model)
    assert not shown(kept)
    claim.release()
    assert torch.equal(predicted(kept, model), made) and shown(kept) == [file]


def test_the_draft_of_a_process_that_died_goes_after_an_hour(kept: PreparedNetworks, model: Model):
    kept.folder.mkdir()
    old, new = (kept.folder / name for name in (".aa.1.tmp", ".bb.2.tmp"))
    for draft in (old, new):
        draft.touch()
    os.utime(old, (0, time.time() - 3700))
    pool(kept).unet(model)
    assert not old.exists() and new.exists()


PROGRAM = f"""
import atexit, os, sys, time
from pathlib import Path
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.prepared_networks import PreparedNetworks

def slowly(descriptor, quickly=os.fsync):
    time.sleep(float(sys.argv[3]))
    quickly(descriptor)

os.fsync = slowly
kept = PreparedNetworks(Path(sys.argv[1]), least_bytes={LEAST})
ModelPool("fp32", "cpu", prepared=kept).unet(read_checkpoint(Path(sys.argv[2]), "tiny")[0])
atexit.register(print, "leaving", flush=True)
"""


def test_a_process_that_ends_at_once_leaves_it_behind(kept: PreparedNetworks, model: Model):
    subprocess.run([sys.executable, "-c", PROGRAM, kept.folder, model.weights.path.parent, "0.1"], check=True)
    (file,) = [path for path, _ in kept.files()]
    assert file.suffix == ".safetensors"


def test_nobody_has_to_wait_for_a_slow_disk(kept: PreparedNetworks, model: Model):
    command = [sys.executable, "-c", PROGRAM, kept.folder, model.weights.path.parent, "3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        said = running.stderr.read()
    assert (said, running.returncode) == ("", 0)
    assert not kept.files()


@pytest.mark.parametrize("dtype", packable_types())
@pytest.mark.parametrize("layer", [Conv2d(16, 32, 3), Conv2d(16, 32, 1), Linear(16, 32)])
def test_weights_in_order_are_bytes_and_come_back(layer: Conv2d | Linear, dtype: torch.dtype):
    assert is_known()
    order = packing(layer, dtype)
    assert order
    weight = order.order(layer.weight.detach().to(dtype))
    numbers = numbers_of(weight).clone()
    again = ordered(numbers, order_of(weight), order.shape, dtype)
    assert torch.equal(again.to_dense(), weight.to_dense())
    assert torch.equal(numbers_of(again), numbers)
    with pytest.raises(ValueError, match="bytes are not a weight of"):
        ordered(numbers[:-64], order_of(weight), order.shape, dtype)


def test_the_cache_shows_and_clears_them(tmp_path: Path, model: Model):
    kept = replace(PreparedNetworks(Folders.below(tmp_path).prepared), least_bytes=LEAST)
    for precision in ("fp32", "bf16"):
        predicted(kept, model, precision)
    total = sum(path.stat().st_size for path in shown(kept))
    said = latentloom("cache", data=tmp_path).out.splitlines()
    assert said[-2:] == [f"{total / 1e6:.1f} MB in 2 prepared networks", str(kept.folder)]
    os.utime(shown(kept)[0], (0, time.time() - 8 * 86400))
    assert latentloom("cache", "clear", "--class", "KSampler", data=tmp_path).code == 0 and len(shown(kept)) == 2
    assert "removed 1 prepared network, " in latentloom("cache", "clear", "--older-than", "7d", data=tmp_path).out
    assert "removed 1 prepared network, " in latentloom("cache", "clear", "--all", data=tmp_path).out
    assert not shown(kept)
