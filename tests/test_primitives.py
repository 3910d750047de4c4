from pathlib import Path
from typing import Any

import pytest

from graph.builder import WorkflowBuilder
from nodes import flow, lists, primitives
from nodes.primitives import ShownText
from tests.running import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.below(tmp_path, primitives, flow, lists)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (primitives.primitive_int, -3),
        (primitives.primitive_float, 2.5),
        (primitives.primitive_string, "a red house"),
        (primitives.primitive_text, "a\nb"),
        (primitives.primitive_boolean, True),
    ],
)
def test_a_primitive_gives_what_it_holds(bench: Bench, function: Any, value: Any):
    with WorkflowBuilder() as workflow:
        function(value=value)
    assert bench.last(workflow) == value


def test_what_takes_a_number_goes_by_the_number(bench: Bench):
    def ran(make: Any) -> list[str]:
        with WorkflowBuilder() as workflow:
            flow.calculate(a=make(), operation="*", b=2.0)
        return bench.run_last(workflow).ran

    assert ran(lambda: primitives.primitive_float(value=3.0)) == ["PrimitiveFloat", "Calculate"]
    assert ran(lambda: flow.calculate(a=1.0, b=2.0).FLOAT) == ["Calculate"]


def test_texts_are_joined_each_with_each(bench: Bench):
    with WorkflowBuilder() as workflow:
        colours = lists.text_lines(text="a red\na blue")
        primitives.concatenate(string_a=colours, string_b="house", delimiter=" ")  # pyright: ignore[reportArgumentType]  # a list is taken item by item
    assert bench.last(workflow).values == ("a red house", "a blue house")


def test_anything_can_be_shown_as_text(bench: Bench):
    with WorkflowBuilder() as workflow:
        primitives.preview_any(source=primitives.primitive_int(value=7))
        primitives.preview_any(source=primitives.primitive_string(value="words"))
    shown = bench.run(workflow).result.checked().shown.values()
    assert {ui.text for ui in shown if isinstance(ui, ShownText)} == {"7", "words"}
    assert ShownText("7").to_json() == {"text": ["7"]}
