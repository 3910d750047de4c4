from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from graph.literals import Between, Widget, literal_type


class Stitch(Enum):
    KNIT = "knit"
    PURL = "purl"


class Gauge(BaseModel):
    rows: int


@pytest.mark.parametrize(
    ("annotation", "given", "seen"),
    [
        (int, "7", 7),
        (int, 7.0, 7),
        (int, 2**64 - 1, 2**64 - 1),
        (float, 7, 7.0),
        (float, "7.5", 7.5),
        (bool, "false", False),
        (bool, "true", True),
        (str, 7, "7"),
        (str, "", ""),
        (int | None, None, None),
        (int | None, "7", 7),
        (list[float], [1, "2"], [1.0, 2.0]),
        (Stitch, "purl", Stitch.PURL),
        (Literal["a", 1], 1, 1),
        (Gauge, {"rows": "3"}, Gauge(rows=3)),
    ],
)
def test_what_a_literal_becomes(annotation: Any, given: object, seen: object):
    found = literal_type(annotation).validate(given)
    assert (found, type(found)) == (seen, type(seen))


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (int, 7.9),
        (int, "7.9"),
        (int, None),
        (int, "many"),
        (float, float("nan")),
        (float, "inf"),
        (float | None, float("inf")),
        (list[float], [float("nan")]),
        (bool, "maybe"),
        (bool, 2),
        (str, None),
        (str, True),
        (Annotated[int, Ge(1)], 0),
        (Stitch, "cross"),
        (Literal["a", "b"], "A"),
    ],
)
def test_what_is_not_a_literal_of_the_type(annotation: Any, given: object):
    with pytest.raises(ValidationError):
        literal_type(annotation).validate(given)


@pytest.mark.parametrize(
    ("annotation", "wire"),
    [
        (int, "INT"),
        (Annotated[float, Ge(0)], "FLOAT"),
        (str | None, "STRING"),
        (bool, "BOOLEAN"),
        (int | float, "FLOAT,INT"),
        (Literal["a"], "COMBO"),
        (Literal["a"] | None, "COMBO"),
        (Stitch, "COMBO"),
        (list[int], "*"),
        (Any, "*"),
    ],
)
def test_how_a_literal_type_is_called_in_documents(annotation: Any, wire: str):
    assert literal_type(annotation).wire == wire


def test_an_enum_offers_its_values():
    assert literal_type(Stitch).choices == ("knit", "purl")
    assert literal_type(Stitch | None).choices == ("knit", "purl")


@given(
    st.sampled_from([(Ge, Le), (Gt, Lt), (Ge, Lt), (Gt, Le)]),
    st.integers(-5, 5),
    st.integers(-5, 5),
    st.integers(-7, 7),
)
def test_limits_admit_what_validation_admits(kinds: tuple[Any, Any], low: int, high: int, value: int):
    literal = literal_type(Annotated[int, kinds[0](low), kinds[1](high)])
    try:
        literal.validate(value)
        fits = True
    except ValidationError:
        fits = False
    assert literal.limits.admit(value) is fits


def test_a_later_widget_adds_to_an_earlier_one():
    Text = Annotated[str, Widget(multiline=True, dynamic_prompts=True)]
    literal = literal_type(Annotated[Text, Widget(multiline=False), Field(description="What to see.")])
    assert literal.widget.options() == {"multiline": False, "dynamicPrompts": True}
    assert literal.tooltip == "What to see."


def test_limits_description_and_step_may_be_said_in_one():
    short = literal_type(Annotated[float, Between(0, 1, "How much.", step=0.1)])
    long = literal_type(Annotated[float, Field(ge=0, le=1, description="How much."), Widget(step=0.1)])
    assert (short.limits, short.tooltip, short.widget, short.simple) == (long.limits, long.tooltip, long.widget, True)
    assert short.json_schema() == long.json_schema()
    assert short.validate(1) == 1
    with pytest.raises(ValidationError):
        short.validate(1.5)
