"""JSON in pieces means what it means as a whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.web.large_json import PIECES, read_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=40)


def outcome(read: Any) -> Any:
    """What is read, or that it is refused."""
    try:
        return json.dumps(read())
    except ValueError:
        return "refused"


@given(VALUES, st.sampled_from((None, 0, 2)), st.sampled_from(((1,), (2, 8), (20,))))
def test_what_is_read_in_pieces_is_what_was_written(value: Any, indent: int | None, pieces: tuple[int, ...]):
    assert read_json(json.dumps(value, indent=indent).encode(), pieces) == value


@given(VALUES, st.data())
def test_what_is_no_json_is_refused_wherever_it_is_wrong(value: Any, data: st.DataObject):
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text)))
    spoilt = (
        text[:at] + data.draw(st.sampled_from(["", "x", "}", "]", ",", '"', "NaN", "1 1"])) + text[at + 1 :]
    ).encode()
    whole = outcome(lambda: read_json(spoilt, (10**9,)))
    assert outcome(lambda: read_json(spoilt, (4, 16))) == whole


def test_the_place_of_a_mistake_is_named():
    text = json.dumps({str(at): {"class_type": "KSampler", "inputs": {}} for at in range(5000)})
    assert len(text) > PIECES[-1]
    wrong = text[:-2] + "?" + text[-2:]
    with pytest.raises(ValueError, match=f"Expecting ',' delimiter.*char {len(text) - 2}"):
        read_json(wrong.encode())


def test_what_is_nested_too_deeply_is_refused():
    deep = "[" * 300 + '"' + "x" * (PIECES[-1] * 2) + '"' + "]" * 300
    with pytest.raises(RecursionError):
        read_json(deep.encode())
    with pytest.raises(RecursionError):
        read_json(b"[" * 200_000)
