import json
from pathlib import Path

import pytest

from nodes.model_errors import ModelError
from nodes.safetensors_header import read_header, read_whole_header

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def written(path: Path, header: object, data: bytes = bytes(16), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_and_metadata_are_read(tmp_path: Path):
    header = read_whole_header(written(tmp_path / "a", {**GOOD, "__metadata__": {"format": "pt"}}))
    assert header.entries["a"].shape == (2,) and header.metadata == {"format": "pt"}


HOSTILE: dict[str, tuple[object, str]] = {
    "no JSON": (b"{{{{", "not a table of tensors"),
    "not text": (b"\xff\xfe\x00", "not a table of tensors"),
    "a list": ([GOOD], "not a table of tensors"),
    "a number": (3, "not a table of tensors"),
    "deep": (b"[" * 100_000, "not a table of tensors"),
    "negative shape": ({"a": entry(shape=[-2])}, "a.shape.0: Input should be greater than or equal to 0"),
    "huge shape": ({"a": entry(shape=[2**62, 2**62])}, "does not fit its shape"),
    "no shape": ({"a": {"dtype": "F32"}}, "a.shape: Field required"),
    "unknown type": ({"a": entry(dtype="F33")}, "'F33', not one of"),
    "negative offset": ({"a": entry(offsets=[-8, 0])}, "a.data_offsets.0"),
    "backwards": ({"a": entry(offsets=[8, 0])}, "does not fit"),
    "beyond the end": ({"a": entry(shape=[2, 2, 2], offsets=[0, 32])}, "cut off: 'a' ends at byte 32 of 16"),
    "overlapping": ({"a": entry(), "b": entry(offsets=[4, 12])}, "'b' lies over 'a'"),
    "odd metadata": ({**GOOD, "__metadata__": {"a": [1]}}, "not a table of tensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_in_a_sentence(case: str, tmp_path: Path):
    header, message = HOSTILE[case]
    with pytest.raises(ModelError) as caught:
        read_header(written(tmp_path / "a", header))
    assert message in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("length", [0, 5, 2**40, 2**64 - 1])
def test_a_header_of_another_length_is_refused(length: int, tmp_path: Path):
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_header(written(tmp_path / "a", GOOD, length=length))
