from collections.abc import Callable
from typing import Any

from graph.explain import Explanation, GraphRecord, explain, record
from graph.keys import Key, key_of
from graph.node import node
from graph.resolve import Graph
from tests.beads import NODES
from tests.toys import Loom, Yarn, graph_of, use

DOCUMENT = {
    "1": use("Spin", colour="red"),
    "2": use("Spin", colour="blue"),
    "3": use("Twist", a=["1", 0], b=["2", 0]),
    "4": use("Show", what=["3", 0]),
}


def keys_of(graph: Graph) -> dict[str, Key | None]:
    keys: dict[str, Key | None] = {}
    for step in graph.steps:
        keys[step.id] = key_of(step, keys)
    return keys


def remembered(document: dict[str, Any]) -> GraphRecord:
    graph = graph_of(Loom().nodes(), document)
    # Through JSON, as it is kept on disk.
    return GraphRecord.model_validate_json(record(graph, keys_of(graph)).model_dump_json())


def explained(
    document: dict[str, Any], before: dict[str, Any] | None, kept: Callable[[Key], bool] = lambda key: False
) -> dict[str, str]:
    graph = graph_of(Loom().nodes(), document)
    found = explain(graph, keys_of(graph), steps_kept(graph, kept), remembered(before) if before else None)
    return {each.step.id: text(each) for each in found}


def steps_kept(graph: Graph, kept: Callable[[Key], bool]) -> set[str]:
    return {step_id for step_id, key in keys_of(graph).items() if key is not None and kept(key)}


def text(each: Explanation) -> str:
    return f"{each.outcome}: {'; '.join(map(str, each.reasons))}" if each.reasons else each.outcome


def kept_from(document: dict[str, Any]) -> Callable[[Key], bool]:
    known = {step.key for step in remembered(document).steps.values()}
    return lambda key: key.hex() in known


def changed(place: str, **inputs: Any) -> dict[str, Any]:
    document = {key: {**used, "inputs": dict(used["inputs"])} for key, used in DOCUMENT.items()}
    document[place]["inputs"] |= inputs
    return document


def test_without_an_earlier_run_everything_is_new():
    assert explained(DOCUMENT, None)["3"] == "run: nothing like it was run before"


def test_an_unchanged_graph_is_reused_but_for_its_output():
    assert explained(DOCUMENT, DOCUMENT, kept_from(DOCUMENT)) == {
        "1": "not needed",
        "2": "not needed",
        "3": "reused",
        "4": "run: an output runs every time",
    }


def test_a_changed_literal_is_named_and_what_follows_says_where_it_comes_from():
    found = explained(changed("2", colour="green"), DOCUMENT, kept_from(DOCUMENT))
    assert found["1"] == "reused"
    assert found["2"] == 'run: colour: "blue" → "green"'
    assert found["3"] == "run: b: node 2 (Spin) differs"


def test_a_result_that_was_dropped_is_not_blamed_on_a_change():
    assert explained(DOCUMENT, DOCUMENT)["3"] == "run: it is the same as before, but no result of it is kept"


def test_a_link_from_elsewhere_is_named():
    found = explained(changed("3", b=["1", 0]), DOCUMENT, kept_from(DOCUMENT))
    assert found["3"] == "run: b: comes from node 1 (Spin) instead of node 2 (Spin)"


def test_renumbering_a_workflow_changes_nothing():
    renumbered = {
        "a": use("Spin", colour="red"),
        "b": use("Spin", colour="blue"),
        "c": use("Twist", a=["a", 0], b=["b", 0]),
        "d": use("Show", what=["c", 0]),
    }
    assert explained(renumbered, DOCUMENT, kept_from(DOCUMENT))["c"] == "reused"


def test_a_new_node_is_new_and_a_removed_link_is_a_changed_input():
    longer = changed("3") | {"5": use("Number", value=3)}
    longer["1"] = use("Spin", colour="red", length=["5", 0])
    found = explained(longer, DOCUMENT, kept_from(DOCUMENT))
    assert found["5"] == "run: it is new"
    assert found["1"] == "run: length: given as node 5 (Number) instead of 1"


def test_changed_code_is_named():
    @node("Spin")
    def spin(colour: str = "red", length: int = 1) -> Yarn:
        return Yarn(colour, length + 1)

    before = remembered(DOCUMENT)
    graph = graph_of([spin, *Loom().nodes()[1:]], DOCUMENT)
    found = explain(graph, keys_of(graph), steps_kept(graph, kept_from(DOCUMENT)), before)
    assert [text(each) for each in found][:1] == ["run: the node's code has changed"]


def test_an_impure_node_says_so():
    @node("Twist", impure=True)
    def twist(a: Yarn, b: Yarn | None = None) -> Yarn:
        return a

    graph = graph_of([node for node in Loom().nodes() if node.name != "Twist"] + [twist], DOCUMENT)
    kept = steps_kept(graph, lambda key: True)
    found = {each.step.id: text(each) for each in explain(graph, keys_of(graph), kept, None)}
    assert found["3"].startswith("run: it, or something it needs, has no identity")


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    graph = graph_of(NODES, document)
    return {each.step.id: each.outcome for each in explain(graph, keys_of(graph), frozenset[str](), None)}


def test_a_branch_of_a_switch_may_run():
    document = {
        "1": use("Bead", number=1),
        "2": use("Bead", number=2),
        "way": use("Switch", on=True, if_true=["1", 0], if_false=["2", 0]),
        "end": use("Show", what=["way", 0]),
    }
    assert outcomes(document) == {"1": "may run", "2": "may run", "way": "run", "end": "run"}


def test_what_lies_in_a_loop_may_run_and_what_it_goes_over_will():
    document = {
        "1": use("Bead", number=1),
        "list": use("Scatter", bead=["1", 0]),
        "each": use("ForEach", items=["list", 0]),
        "join": use("Join", a=["each", 1]),
        "loop": use("ForEachEnd", loop=["each", 0], result=["join", 0]),
        "end": use("Show", what=["loop", 0]),
    }
    assert outcomes(document) == dict.fromkeys(("1", "list", "loop", "end"), "run") | dict.fromkeys(
        ("each", "join"), "may run"
    )
