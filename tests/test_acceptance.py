"""What of a prompt is run, and what clients are told of the rest."""

from typing import Any

from graph.catalogue import Catalogue
from graph.workflow import read
from server.web.acceptance import Accepted, Refused, examine
from tests.toys import NOWHERE, Loom, use

CATALOGUE = Catalogue(Loom().nodes())
GOOD = {"a": use("Spin"), "show": use("Show", what=["a", 0])}


def examined(document: dict[str, Any], targets: list[str] | None = None) -> Accepted | Refused:
    return examine(read(document), CATALOGUE, NOWHERE, targets)


def refused(document: dict[str, Any], targets: list[str] | None = None) -> dict[str, Any]:
    found = examined(document, targets)
    assert isinstance(found, Refused)
    return found.body


def error_of(node_id: str, **inputs: Any) -> dict[str, Any]:
    """The one error of a Half node with these inputs."""
    body = refused({"half": use("Half", **inputs), "show": use("Tell", number=["half", 0])})
    (error,) = body["node_errors"][node_id]["errors"]
    return error


def test_a_good_prompt_is_taken_whole():
    found = examined(GOOD)
    assert isinstance(found, Accepted)
    assert (found.targets, found.node_errors) == (("show",), {})


def test_outputs_that_cannot_be_made_are_left_out_and_explained():
    found = examined(GOOD | {"b": use("Spin", length="long"), "other": use("Show", what=["b", 0])})
    assert isinstance(found, Accepted)
    assert found.targets == ("show",)
    assert list(found.node_errors) == ["b"]
    assert found.node_errors["b"]["dependent_outputs"] == ["other"]
    assert found.node_errors["b"]["class_type"] == "Spin"


def test_only_the_outputs_that_were_asked_for_are_run():
    found = examined(GOOD | {"again": use("Show", what=["a", 0])}, ["again", "a"])
    assert isinstance(found, Accepted)
    assert found.targets == ("again",)


def test_an_unknown_class_refuses_the_whole_prompt():
    body = refused(GOOD | {"x": use("Spinn")})
    assert body["error"]["type"] == "invalid_prompt"
    assert body["error"]["message"] == "Cannot execute because node Spinn does not exist."
    assert body["error"]["details"] == "Node ID '#x'; did you mean 'Spin'?"


def test_a_prompt_without_outputs_is_refused():
    assert refused({"a": use("Spin")})["error"]["type"] == "prompt_no_outputs"
    assert refused(GOOD, [])["error"]["type"] == "prompt_no_outputs"


def test_a_prompt_of_which_nothing_can_be_made_is_refused():
    body = refused({"b": use("Spin", length="long"), "show": use("Show", what=["b", 0])})
    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert "node b (Spin), input 'length'" in body["error"]["details"]


def test_wrong_inputs_have_the_protocols_names():
    assert error_of("half", value="much")["type"] == "invalid_input_type"
    assert error_of("half", value=["nobody", 0])["type"] == "bad_linked_input"
    assert error_of("half", value=["half"])["type"] == "bad_linked_input"
    body = refused({"weave": use("Weave", warp=["weave", 0]), "show": use("Show", what=["weave", 0])})
    assert {error["type"] for error in body["node_errors"]["weave"]["errors"]} >= {"required_input_missing"}


def test_a_cycle_is_named():
    body = refused({"a": use("Twist", a=["b", 0]), "b": use("Twist", a=["a", 0]), "show": use("Show", what=["a", 0])})
    (errors,) = body["node_errors"].values()
    assert errors["errors"][0]["type"] == "dependency_cycle"


def test_an_error_says_what_was_expected_at_which_input():
    error = error_of("half", value="much")
    assert error["extra_info"]["input_name"] == "value"
    assert error["extra_info"]["input_config"] == ["FLOAT", {"default": 1.0}]
    assert error["extra_info"]["received_value"] == "'much'"
