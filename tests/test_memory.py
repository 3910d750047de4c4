"""What is done where memory is short: networks that are not needed go, and pictures are done in tiles."""

import logging
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nodes import memory
from nodes.model_folders import read_checkpoint
from nodes.models import ModelPool
from nodes.values import Clip, Model, Vae
from tests import tiny_models

GIB = 2**30


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Clip, Vae]:
    return read_checkpoint(tiny_models.write_checkpoint(tmp_path_factory.mktemp("made") / "tiny"), "tiny")


@pytest.fixture
def loomlet() -> Vae:
    from nodes.checkpoints import CHECKPOINTS
    from nodes.engine import Engine

    return read_checkpoint(CHECKPOINTS.locate(Engine().folders, "loomlet"), "loomlet")[2]


@pytest.fixture
def pool() -> ModelPool:
    return ModelPool(precision="fp32", device="cpu")


def tell(monkeypatch: pytest.MonkeyPatch, *rooms: int) -> None:
    """How much room there is each time somebody asks; the last for ever."""
    told = chain(rooms, repeat(rooms[-1]))

    def room(device: torch.device) -> int:
        return next(told)

    monkeypatch.setattr("nodes.models.room", room)


def picture() -> Tensor:
    """A picture of slow changes, in -1…1, of 768 × 512 pixels."""
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 768), torch.linspace(0, 4, 512), indexing="ij")
    return torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()])[None] * 0.8


def test_without_room_a_picture_is_done_in_tiles_and_is_as_like_the_original(
    loomlet: Vae, pool: ModelPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    given = picture()
    whole = pool.decode_latent(loomlet, pool.encode_pixels(loomlet, given))
    tell(monkeypatch, 1_000)
    tiled = pool.decode_latent(loomlet, pool.encode_pixels(loomlet, given))
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)
    # Norms are of a tile then and not of the picture, which changes colours a little, for better or worse.
    assert (tiled - given).abs().mean() < 1.1 * (whole - given).abs().mean()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert all("512 × 768 pixels" in line and "is done in tiles of 256 pixels" in line for line in said)
    assert len(said) == 2


def test_with_room_nothing_is_cut_and_nothing_goes(
    parts: tuple[Model, Clip, Vae], pool: ModelPool, monkeypatch: pytest.MonkeyPatch
):
    pool.unet(parts[0])
    tell(monkeypatch, GIB)
    pool.decode_latent(parts[2], torch.zeros(1, 4, 8, 8))
    assert [name for name, _ in pool.resident] == ["tiny U-Net", "tiny VAE"]


def test_other_networks_go_before_a_picture_is_cut(
    parts: tuple[Model, Clip, Vae],
    pool: ModelPool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO, "latentloom.models")
    pool.unet(parts[0])
    latent = torch.zeros(1, 4, 40, 40)
    whole = pool.decode_latent(parts[2], latent)
    pool.unet(parts[0])
    tell(monkeypatch, 1_000, GIB)
    assert torch.equal(pool.decode_latent(parts[2], latent), whole)
    assert [name for name, _ in pool.resident] == ["tiny VAE"]
    assert any("dropped tiny U-Net" in line and "for decoding a picture" in line for line in caplog.messages)


def test_room_is_made_before_a_network_is_loaded(
    parts: tuple[Model, Clip, Vae], pool: ModelPool, caplog: pytest.LogCaptureFixture
):
    pool.unet(parts[0])
    pool.vae(parts[2])
    caplog.set_level(logging.INFO, "latentloom.models")
    small = ModelPool(precision="fp32", device="cpu", max_bytes=sum(nbytes for _, nbytes in pool.resident) - 1)
    small.unet(parts[0])
    small.vae(parts[2])
    lines = [line for line in caplog.messages if line.startswith(("dropped", "loaded tiny VAE"))]
    assert lines[0].startswith("dropped tiny U-Net") and lines[0].endswith("for tiny VAE")
    assert lines[1].startswith("loaded tiny VAE")


def test_what_a_network_will_take_is_known_before_and_right(
    parts: tuple[Model, Clip, Vae], pool: ModelPool, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "latentloom.models")
    pool.unet(parts[0])
    pool.text_encoder(parts[1])
    pool.vae(parts[2])
    loaded = [line.split() for line in caplog.messages if line.startswith("loaded")]
    assert len(loaded) == 3
    for words in loaded:
        at = words.index("MB")
        assert float(words[at + 1].strip("(")) == pytest.approx(float(words[at - 1]), abs=0.2)  # pyright: ignore[reportUnknownMemberType]  # pytest types approx bare


def test_the_room_of_a_machine_is_what_it_says_and_a_container_may_have_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    cpu = torch.device("cpu")
    assert memory.room(cpu) is None
    meminfo.write_text("MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\n")
    assert memory.room(cpu) == 20_000_000 * 1024
    (tmp_path / "memory.current").write_text("1000")
    (tmp_path / "memory.max").write_text("max")
    assert memory.room(cpu) == 20_000_000 * 1024
    (tmp_path / "memory.max").write_text("5000")
    assert memory.room(cpu) == 4000
