"""Subgraphs of editor documents: their borders, their widgets on the outside, and those that never end."""

from typing import Any

import pytest

from tests.canvas import api, canvas, converted, drawn, refused, subgraph
from workflows.editor import scopes

Json = dict[str, Any]
MASKS = subgraph(
    "masks",
    drawn(1, "SolidMask", [0.5, 16, 32], links={"width": (-10, 0), "height": (-10, 0)}),
    drawn(2, "InvertMask", links={"mask": (1, 0)}),
    inputs=["side"],
    outputs={"first": (1, 0), "inverted": (2, 0)},
)
"""One number is both the width and the height of a mask, which comes out as it is and inverted."""


def use(node_id: int, definition: str = "masks", values: Any = None, **more: Any) -> Json:
    return drawn(node_id, definition, values, outputs=["MASK", "MASK"], **more)


def show(node_id: int, source: tuple[int, int]) -> Json:
    return drawn(node_id, "MaskToImage", links={"mask": source})


def document(*nodes: Json, definitions: list[Json] | None = None) -> Json:
    return canvas(*nodes, definitions={"subgraphs": definitions or [MASKS]})


def test_outputs_are_those_of_the_nodes_inside():
    found = api(document(use(5), show(6, (5, 0)), show(7, (5, 1))))
    assert list(found) == ["5:1", "5:2", "6", "7"]
    assert found["5:2"][1] == {"mask": ["5:1", 0]}
    assert (found["6"][1]["mask"], found["7"][1]["mask"]) == (["5:1", 0], ["5:2", 0])


def test_an_input_that_is_linked_reaches_every_widget_inside():
    side = drawn(1, "PrimitiveNode", [64, "fixed"], outputs=["INT"])
    used = use(5, inputs=[("side", "INT")], links={"side": (1, 0)}, values=[8])
    assert api(document(side, used))["5:1"][1] == {"value": 0.5, "width": 64, "height": 64}


@pytest.mark.parametrize(
    ("values", "inside"), [([8], (8, 8)), ({"side": 8}, (8, 8)), ([], (16, 32)), (None, (16, 32)), ([None], (16, 32))]
)
def test_an_input_that_is_not_linked_gives_its_widgets_value(values: Any, inside: tuple[int, int]):
    found = api(document(use(5, values=values)))["5:1"][1]
    assert (found["width"], found["height"]) == inside


@pytest.mark.parametrize(
    ("proxies", "values"),
    [
        ([["1", "value"]], [8, 0.25]),  # an input's widget comes first unless it is named
        ([["1", "value"], ["-1", "side"]], [0.25, 8]),
        ([["1", "value"], ["1", "width"]], [0.25, 8]),  # the widget that the input leads to
        ([[1, "value"], ["-1", "nothing"], "?", ["7"], ["-1", "side"]], [0.25, 8]),
        ([["1", "value"], ["2", "nothing"]], [8, 0.25, 3]),
    ],
)
def test_widgets_inside_are_set_from_the_outside(proxies: list[Any], values: list[Any]):
    used = use(5, values=values, properties={"proxyWidgets": proxies})
    assert api(document(used))["5:1"][1] == {"value": 0.25, "width": 8, "height": 8}


def test_a_widget_whose_value_was_not_written_down_has_the_one_inside():
    proxies = [["1", "value"], ["1", "control_after_generate"], ["-1", "side"]]
    used = use(5, values=[None, None, 8], properties={"proxyWidgets": proxies})
    assert api(document(used))["5:1"][1] == {"value": 0.5, "width": 8, "height": 8}


@pytest.mark.parametrize("name", ["value", "1: value"])
def test_widgets_are_set_through_two_borders(name: str):
    inner = use(3, properties={"proxyWidgets": [["1", "value"]]}, values=[7, 0.75])
    outer = subgraph("outer", inner, inputs=[], outputs={"mask": (3, 1)})
    proxies = [["3", name], ["3", "side"]]
    told = document(use(5, "outer", [0.125, 9], properties={"proxyWidgets": proxies}), definitions=[outer, MASKS])
    assert api(told)["5:3:1"][1] == {"value": 0.125, "width": 9, "height": 9}
    silent = document(use(5, "outer"), show(6, (5, 0)), definitions=[outer, MASKS])
    assert api(silent)["5:3:1"][1] == {"value": 0.75, "width": 7, "height": 7}
    assert api(silent)["6"][1]["mask"] == ["5:3:2", 0]


def test_inputs_go_by_their_names_as_some_may_not_be_drawn():
    two = subgraph(
        "two",
        drawn(1, "MaskComposite", [0, 0, "add"], links={"destination": (-10, 0), "source": (-10, 1)}),
        inputs=["below", "above"],
        outputs={"mask": (1, 0)},
    )
    mask = drawn(4, "SolidMask", [1.0, 8, 8])
    used = use(5, "two", inputs=[("above", "MASK")], links={"above": (4, 0)})
    assert "destination" not in (found := api(document(mask, used, definitions=[two]))["5:1"][1])
    assert found["source"] == ["4", 0]
    renamed = use(5, "two", inputs=[("under", "MASK"), ("over", "MASK")], links={"over": (4, 0)})
    assert api(document(mask, renamed, definitions=[two]))["5:1"][1]["source"] == ["4", 0]


def test_a_muted_subgraph_takes_everything_inside_with_it():
    found = converted(document(use(5, mode=2), show(6, (5, 0))))
    assert list(found.document) == ["6"] and "node 5 (masks), which is muted" in found.warnings[0]


def test_a_bypassed_subgraph_hands_on_what_fits():
    mask = drawn(4, "SolidMask", [1.0, 8, 8])
    used = use(5, inputs=[("side", "INT"), ("mask", "MASK")], links={"mask": (4, 0)}, mode=4)
    assert list(found := api(document(mask, used, show(6, (5, 0))))) == ["4", "6"]
    assert found["6"][1]["mask"] == ["4", 0]


def test_nodes_inside_may_be_muted_and_bypassed():
    inside = subgraph(
        "inside",
        drawn(1, "SolidMask", [0.5, 16, 32]),
        drawn(2, "InvertMask", links={"mask": (1, 0)}, mode=4),
        drawn(3, "InvertMask", links={"mask": (1, 0)}, mode=2),
        inputs=[],
        outputs={"a": (2, 0), "b": (3, 0)},
    )
    found = converted(document(use(5, "inside"), show(6, (5, 0)), show(7, (5, 1)), definitions=[inside]))
    assert found.document["6"]["inputs"] == {"mask": ["5:1", 0]} and found.document["7"]["inputs"] == {}
    assert "node 5:3 (InvertMask), which is muted" in found.warnings[0]


def test_an_output_that_nothing_inside_leads_to_is_no_connection():
    empty = subgraph("empty", inputs=["a"], outputs={})
    assert api(document(use(5, "empty"), show(6, (5, 0)), definitions=[empty]))["6"][1] == {}


def test_definitions_may_stand_inside_definitions():
    outer = subgraph("outer", use(3), inputs=[], outputs={"mask": (3, 0)}) | {"definitions": {"subgraphs": [MASKS]}}
    assert api(document(use(5, "outer"), show(6, (5, 0)), definitions=[outer]))["6"][1]["mask"] == ["5:3:1", 0]


def test_a_circle_across_a_border_is_named():
    through = subgraph("through", drawn(1, "Reroute", inputs=[("", "*")], outputs=["*"], links={"": (-10, 0)}),
                       inputs=["a"], outputs={"b": (1, 0)})  # fmt: skip
    used = use(5, "through", inputs=[("a", "*")], links={"a": (5, 0)})
    (problem,) = refused(document(used, show(6, (5, 0)), definitions=[through]))
    assert problem.kind == "cycle" and "5:1 (Reroute)" in problem.message


def test_a_subgraph_that_contains_itself_is_refused():
    inner = subgraph("inner", use(3, "outer"), inputs=[], outputs={})
    outer = subgraph("outer", use(4, "inner"), inputs=[], outputs={})
    (problem,) = refused(document(use(5, "outer"), definitions=[inner, outer]))
    assert str(problem) == "node 5:4:3 (outer): the subgraph 'outer' contains itself"


def test_subgraphs_nested_without_end_are_refused():
    chain = [subgraph(f"s{at}", use(1, f"s{at + 1}"), inputs=[], outputs={}) for at in range(1000)]
    (problem,) = refused(document(use(1, "s0"), definitions=[*chain, subgraph("s1000", inputs=[], outputs={})]))
    assert "nested more than 64 deep" in problem.message


def test_subgraphs_that_unfold_to_too_much_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scopes, "MOST_NODES", 1000)
    doubling = [
        subgraph(f"s{at}", use(1, f"s{at + 1}"), use(2, f"s{at + 1}"), inputs=[], outputs={}) for at in range(40)
    ]
    (problem,) = refused(document(use(1, "s0"), definitions=[*doubling, subgraph("s40", inputs=[], outputs={})]))
    assert "more than 1000 nodes" in problem.message


def test_two_nodes_that_get_one_id_are_refused():
    (problem,) = refused(document(use(5), drawn("5:1", "SolidMask", [1.0, 8, 8])))
    assert problem.node_id == "5:1" and "once subgraphs are unfolded" in problem.message
