import io
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from graph.codec import Codec, NoCodec, Unreadable
from graph.entry_file import CHUNK_BYTES, Label, read_entry, read_label, write_entry
from graph.values import Value
from nodes.codecs import CODEC, DTYPES
from nodes.values import (
    Clip,
    Conditioning,
    Image,
    Latent,
    Mask,
    Model,
    Noise,
    Prompt,
    SamplerChoice,
    SamplerState,
    Sigmas,
    Vae,
    Weights,
)

KEY = bytes(range(32))
LABEL = Label(KEY, "Sampler", 1.5, 1e9)


@dataclass(frozen=True)
class Fabric(Value, kind="FABRIC"):
    """Somebody's own value, which the codec has never heard of."""

    threads: tuple["Thread", ...]
    pattern: dict[str, Any]
    colours: torch.Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", {**self.pattern, "made": self.pattern.get("made", 0) + 1})


@dataclass(frozen=True)
class Thread:
    name: str


class Pair(NamedTuple):
    one: int
    other: int


@dataclass
class Changeable(Value):
    number: int = 0


def encoded(value: object, label: Label = LABEL) -> bytes:
    file = io.BytesIO()
    nbytes = write_entry(file, label, CODEC.encode(value))
    assert nbytes == len(file.getvalue())
    return file.getvalue()


def again(value: object, folder: Path) -> Any:
    """The value, written and read."""
    path = folder / "entry.safetensors"
    path.write_bytes(encoded(value))
    assert read_label(path) == (LABEL, path.stat().st_size)
    return read_entry(path, KEY, CODEC)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        return alike and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
    if isinstance(one, tuple | list):
        mine, theirs = cast("list[Any]", one), cast("list[Any]", other)
        return len(mine) == len(theirs) and all(same(a, b) for a, b in zip(mine, theirs, strict=True))
    if isinstance(one, dict):
        return same(list(cast("dict[Any, Any]", one).items()), list(other.items()))
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    return one == other


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


WEIGHTS = Weights(Path("/models/a b"), "ab12", "a")
STATE = SamplerState(
    tensor(1, 4, 8, 8), 0.5, "dpmpp_2m", 2**64 - 1, "ab", (tensor(1, 4, 8, 8),), (1.0, 0.5), 3, (0.1, 14.6), None
)
VALUES = [
    Model(WEIGHTS),
    Clip(WEIGHTS, replace(WEIGHTS, name="words")),
    Vae(WEIGHTS),
    Conditioning((Prompt(tensor(1, 77, 32), tensor(1, 32), 0.5), Prompt(tensor(1, 77, 32)))),
    Image(tensor(2, 8, 8, 3)),
    Mask(tensor(1, 8, 8)),
    Latent(tensor(2, 4, 8, 8), tensor(1, 1, 64, 64), (3, 4), STATE),
    Noise(None),
    Sigmas((14.6, 0.0)),
    SamplerChoice("euler"),
    STATE,
]

LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=40) | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_value_of_a_node_is_read_as_it_was_written(tmp_path: Path, value: Value):
    assert same(again((value,), tmp_path), (value,))


@settings(max_examples=150, deadline=None)
@given(LITERALS)
def test_literals_keep_their_values_and_types(tmp_path_factory: pytest.TempPathFactory, value: Any):
    assert same(again((value,), tmp_path_factory.getbasetemp()), (value,))


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4, 5)])
def test_tensors_of_every_type_and_shape(tmp_path: Path, dtype: str, shape: tuple[int, ...]):
    value = (tensor(*shape) * 10).to(getattr(torch, dtype))
    assert same(again(value, tmp_path), value)


@pytest.mark.parametrize(
    "value",
    [
        tensor(2, 4, 8, 8).contiguous(memory_format=torch.channels_last),
        tensor(1, 1, 8, 8).contiguous(memory_format=torch.channels_last),
        tensor(2, 4, 8, 6).permute(3, 0, 2, 1),
        tensor(8, 6).T,
    ],
)
def test_a_tensor_lies_in_memory_as_it_did(tmp_path: Path, value: torch.Tensor):
    found = again(value, tmp_path)
    assert same(found, value) and found.data_ptr() % 64 == 0


@pytest.mark.parametrize("value", [tensor(8, 8)[:, 2:5], tensor(8, 1).expand(8, 9), tensor(9)[::2]])
def test_a_view_with_gaps_is_written_without_them(tmp_path: Path, value: torch.Tensor):
    found = again(value, tmp_path)
    assert torch.equal(found, value) and found.untyped_storage().nbytes() == found.nbytes


def test_tensors_are_aligned_whatever_lies_before_them(tmp_path: Path):
    for found in again((tensor(3), b"abc", tensor(5), tensor(300, 9), tensor(7)), tmp_path):
        assert isinstance(found, bytes) or found.data_ptr() % 64 == 0


def test_what_is_small_does_not_keep_what_is_large(tmp_path: Path):
    large, small, other = again((tensor(1000, 100), tensor(100), tensor(900, 100)), tmp_path)
    room = range(large.data_ptr(), large.data_ptr() + large.nbytes + small.nbytes + other.nbytes)
    assert small.data_ptr() not in room and other.data_ptr() not in room


def test_what_is_one_object_is_written_once_and_read_as_one(tmp_path: Path):
    shared = tensor(100)
    one, (other,) = again((shared, [shared]), tmp_path)
    assert one is other
    assert len(encoded((shared, shared))) < len(encoded((shared, shared.clone())))


def test_a_value_of_ones_own_needs_no_codec_of_its_own(tmp_path: Path):
    fabric = Fabric((Thread("warp"), Thread("weft")), {"checks": [1, 2.0, None]}, tensor(3))
    found = again(fabric, tmp_path)
    assert same(found, fabric) and found.pattern["made"] == 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Changeable(),
        {1, 2},
        1j,
        Pair(1, 2),
        torch.nn.Parameter(tensor(2)),
        torch.zeros(2, dtype=torch.complex64),
        tensor(4).to_sparse(),
        Image,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_it_does_not_know_is_refused(value: object):
    with pytest.raises(NoCodec, match="cannot be kept on disk"):
        CODEC.encode((1, value))


def test_a_class_that_cannot_be_found_again_is_refused():
    @dataclass(frozen=True)
    class Local(Value):
        number: int = 1

    with pytest.raises(NoCodec, match="Local"):
        CODEC.encode(Local())


def test_values_nested_without_end_are_refused():
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NoCodec, match="too deeply"):
        CODEC.encode(endless)


def test_an_entry_is_a_safetensors_file(tmp_path: Path):
    (tmp_path / "entry").write_bytes(encoded(VALUES[6]))
    with cast(Any, safe_open(str(tmp_path / "entry"), "pt")) as file:
        assert file.metadata()["class"] == "Sampler"
        assert torch.equal(file.get_tensor("tensor.0"), tensor(2, 4, 8, 8))


@pytest.mark.parametrize("around", [CHUNK_BYTES, 2 * CHUNK_BYTES])
def test_entries_of_every_length_around_a_chunk_are_read(tmp_path: Path, around: int):
    rest = len(encoded((bytes(CHUNK_BYTES),))) - CHUNK_BYTES
    for length in range(around - rest - 20, around - rest + 80):
        value = (b"ab" * (length // 2) + b"a" * (length % 2),)
        assert again(value, tmp_path) == value


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([VALUES[0], bytes(CHUNK_BYTES)]))
def test_no_damage_is_overlooked(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, more: Any):
    whole = encoded((tensor(5), b"abc", more))
    at = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "insert", "zero"]))
    damaged = bytearray(whole)
    if change == "flip":
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    elif change == "cut":
        del damaged[at:]
    elif change == "insert":
        damaged.insert(at, data.draw(st.integers(0, 255)))
    else:
        damaged[at:] = bytes(len(whole) - at)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    with pytest.raises(Unreadable):
        read_entry(path, KEY, CODEC)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"{}", encoded(1) + b"\0"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "entry").write_bytes(content)
    with pytest.raises(Unreadable):
        read_entry(tmp_path / "entry", KEY, CODEC)


def test_an_entry_under_another_key_is_refused(tmp_path: Path):
    (tmp_path / "entry").write_bytes(encoded(1))
    with pytest.raises(Unreadable, match="another key"):
        read_entry(tmp_path / "entry", KEY[::-1], CODEC)


def test_an_entry_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as past:
        past.setattr("graph.entry_file.FORMAT", "latentloom-0")
        (tmp_path / "entry").write_bytes(encoded(1))
    with pytest.raises(Unreadable, match="latentloom-0"):
        read_entry(tmp_path / "entry", KEY, CODEC)


def test_a_value_whose_fields_have_changed_is_refused():
    tree = CODEC.encode(Noise(1)).tree
    tree["fields"]["colour"] = "pink"
    with pytest.raises(Unreadable, match="other fields"):
        CODEC.decode(tree, {})


STRANGE: list[Any] = [
    {"value": ["os", "system"], "fields": {}},
    {"value": ["nodes.values", "ShapeError"], "fields": {}},
    {"value": ["no.such.module", "Image"], "fields": {}},
    {"block": "tensor.7"},
    {"block": "pickle.0"},
    {"dict": [[[], 1]]},
    {"int": "many"},
    {"set": [1]},
    [1, 2],
]


@pytest.mark.parametrize("tree", STRANGE)
def test_a_tree_that_no_value_has_is_refused(tree: Any):
    with pytest.raises(Unreadable):
        CODEC.decode(tree, {})


def test_without_a_codec_for_tensors_there_are_none(tmp_path: Path):
    with pytest.raises(NoCodec):
        Codec().encode(tensor(1))
    (tmp_path / "entry").write_bytes(encoded(tensor(1)))
    with pytest.raises(Unreadable, match="no codec"):
        read_entry(tmp_path / "entry", KEY, Codec())
