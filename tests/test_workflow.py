import json

import pytest

from graph.problems import InvalidWorkflow
from graph.workflow import parse, read


def refusal(text: str | bytes) -> str:
    with pytest.raises(InvalidWorkflow) as caught:
        parse(text)
    return str(caught.value)


def test_a_document_becomes_nodes_in_its_order():
    workflow = parse('{"b": {"class_type": "Spin", "inputs": {"length": 2}}, "a": {"class_type": "Show"}}')
    assert list(workflow) == ["b", "a"]
    assert workflow["b"].inputs == {"length": 2}
    assert workflow["a"].inputs == {}


def test_unknown_keys_are_kept():
    document = {"1": {"class_type": "Spin", "inputs": {}, "_meta": {"title": "Wool"}, "copy": 1, "is_changed": [2]}}
    workflow = read(document)
    assert workflow["1"].title == "Wool"
    assert {key: node.model_dump() for key, node in workflow.items()} == document


@pytest.mark.parametrize("meta", [None, 3, [], {}, {"title": 3}])
def test_a_meta_that_says_nothing_gives_no_title(meta: object):
    assert read({"1": {"class_type": "Spin", "_meta": meta}})["1"].title is None


def test_a_document_may_hold_the_workflow_as_prompt():
    assert list(parse('{"prompt": {"1": {"class_type": "Spin"}}, "extra_data": {}}')) == ["1"]


def test_a_node_may_be_called_prompt():
    assert list(parse('{"prompt": {"class_type": "Spin"}, "nodes": {"class_type": "Show"}}')) == ["prompt", "nodes"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "nope", b"\xff\xfe\xff", '{"a": NaN}', '{"a": -Infinity}', '{"a": ' + "1" * 5000 + "}", b"\x89PNG\r\n"],
)
def test_what_is_not_json_is_refused(text: str | bytes):
    assert refusal(text).startswith("this is not JSON: ")


def test_json_nested_without_end_is_refused():
    assert "nested too deeply" in refusal("[" * 100_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a workflow is a JSON object of nodes, but this is a list"),
        ("null", "this is null"),
        ("{}", "this workflow has no nodes"),
        ('{"nodes": [], "links": []}', "latentloom convert"),
        ('{"1": 7}', "node 1 (?): each node is an object with “class_type” and “inputs”, but this is a number"),
        ('{"1": {}}', "node 1 (?): “class_type” is missing"),
        ('{"1": {"class_type": null}}', "“class_type” must be text, but it is null"),
        ('{"1": {"class_type": "A", "inputs": [1]}}', "“inputs” must be an object, but it is a list"),
        ('{"class_type": "A", "inputs": {}}', "each node is an object"),
    ],
)
def test_json_that_is_not_a_workflow_is_refused(text: str, message: str):
    assert message in refusal(text)


def test_every_malformed_node_is_named():
    with pytest.raises(InvalidWorkflow) as caught:
        read({"1": 1, "2": {"class_type": "A"}, "3": {"inputs": 3}})
    assert [problem.node_id for problem in caught.value.problems] == ["1", "3", "3"]
    assert {problem.kind for problem in caught.value.problems} == {"not_a_workflow"}


def test_a_byte_order_mark_does_not_matter():
    assert list(parse(b"\xef\xbb\xbf" + json.dumps({"1": {"class_type": "A"}}).encode())) == ["1"]
