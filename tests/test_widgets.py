"""What arrays of widgets' values say."""

from typing import Any

import pytest

from tests.canvas import info
from workflows.editor.descriptions import Descriptions
from workflows.editor.widgets import array_of, named_values, rewritten

FILES = [["a.png", "b.png"], {"image_upload": True}]
COLOURS = [["red", "blue"]]
INFOS: dict[str, Any] = {
    "Sampler": info(model=["MODEL"], seed=["INT", {"default": 0}], steps=["INT", {"default": 20}], name=COLOURS),
    "Counter": info(value=["INT", {"control_after_generate": True}], on=["BOOLEAN", {"default": True}]),
    "Quiet": info(seed=["INT", {"control_after_generate": False}], name=COLOURS),
    "Picker": info(file=[["a", "b"], {"control_after_generate": True}], count=["INT", {}]),
    "Loader": info(image=FILES, channel=[["alpha", "red"]], optional={"size": ["INT", {"default": 4}]}),
    "Forced": info(a=["INT", {"forceInput": True}], b=["INT", {"default": 1}], c=["STRING", {"forceInput": True}]),
    "Types": info(
        whole=["INT", {"min": 3}],
        number=["FLOAT", {}],
        text=["STRING", {}],
        truth=["BOOLEAN", {}],
        choice=["COMBO", {"options": ["x", "y"]}],
        none=[[], {}],
        either=["FLOAT,INT", {"widgetType": "FLOAT", "default": 0.5}],
        curve=["CURVE", {"socketless": True, "default": [1, 2]}],
        anything=["*", {"default": 3}],
        image=["IMAGE"],
        optional={"late": ["INT", {}], "later": ["INT", {"default": 7}]},
    ),
    "Ordered": {
        "input": {"required": {"b": ["INT", {}], "a": ["INT", {}], "c": ["INT", {}]}},
        "input_order": {"required": ["a", "b"]},
    },
}


def values(kind: str, given: Any) -> dict[str, Any]:
    description = Descriptions(INFOS).get(kind)
    assert description is not None
    return named_values(description, given)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        # a seed's control value, where there is one
        ("Sampler", [5, "randomize", 20, "blue"], {"seed": 5, "steps": 20, "name": "blue"}),
        ("Sampler", [5, True, 20, "blue"], {"seed": 5, "steps": 20, "name": "blue"}),
        ("Sampler", [5, 20, "blue"], {"seed": 5, "steps": 20, "name": "blue"}),
        ("Counter", [5, "fixed", False], {"value": 5, "on": False}),
        ("Quiet", [5, "blue"], {"seed": 5, "name": "blue"}),
        ("Quiet", [5, "increment", "blue"], {"seed": 5, "name": "blue"}),
        ("Picker", ["b", "increment-wrap", "", 3], {"file": "b", "count": 3}),
        # an upload button, after the other required widgets or beside its own, or none
        ("Loader", ["a.png", "red", "image", 9], {"image": "a.png", "channel": "red", "size": 9}),
        ("Loader", ["a.png", "image", "red", 9], {"image": "a.png", "channel": "red", "size": 9}),
        ("Loader", ["gone.png", "alpha", 9, "image"], {"image": "gone.png", "channel": "alpha", "size": 9}),
        ("Loader", ["a.png", "red", 9], {"image": "a.png", "channel": "red", "size": 9}),
        ("Loader", ["gone.png", "red", None, 9], {"image": "gone.png", "channel": "red", "size": 9}),
        # values of old files for inputs that can only be linked
        ("Forced", [2], {"b": 2}),
        ("Forced", [0, 2, ""], {"b": 2}),
        # files that are shorter or longer than today's node
        ("Sampler", [5, "fixed"], {"seed": 5, "steps": 20, "name": "red"}),
        ("Sampler", [5, "fixed", 30, "blue", {"of": "an extension"}, 3], {"seed": 5, "steps": 30, "name": "blue"}),
        ("Sampler", [], {"seed": 0, "steps": 20, "name": "red"}),
        ("Sampler", None, {"seed": 0, "steps": 20, "name": "red"}),
        ("Sampler", "nonsense", {"seed": 0, "steps": 20, "name": "red"}),
        # the form with names
        ("Sampler", {"name": "blue", "seed": 3, "preview": {}}, {"seed": 3, "steps": 20, "name": "blue"}),
        # values are passed on as they are, right or wrong
        ("Sampler", ["x", "fixed", None, 7], {"seed": "x", "steps": None, "name": 7}),
        ("Ordered", [1, 2, 3], {"a": 1, "b": 2, "c": 3}),
    ],
)
def test_an_array_is_read_in_the_order_that_fits(kind: str, given: Any, expected: dict[str, Any]):
    assert values(kind, given) == expected


def test_a_widget_nobody_touched_has_its_default_or_the_first_it_offers():
    assert values("Types", None) == {
        "whole": 3,
        "number": 0,
        "text": "",
        "truth": False,
        "choice": "x",
        "either": 0.5,
        "curve": [1, 2],
        "later": 7,
    }


def test_an_array_is_written_as_editors_write_it():
    for kind, given, array in [
        ("Sampler", {"seed": 5, "name": "blue"}, [5, "fixed", 20, "blue"]),
        ("Loader", {"image": "a.png", "channel": "red"}, ["a.png", "red", "image", 4]),
        ("Picker", {"file": "b"}, ["b", "fixed", "", None]),
        ("Forced", {"b": 3}, [3]),
    ]:
        description = Descriptions(INFOS).get(kind)
        assert description is not None and array_of(description, given) == array


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([5, "randomize", 20, "blue", "more"], [6, "randomize", 20, "red", "more"]),
        ([5, 20, "blue"], [6, 20, "red"]),
        ([5, "randomize"], [6, "fixed", 20, "red"]),
        ({"steps": 9, "preview": 1}, {"steps": 9, "preview": 1, "seed": 6, "name": "red"}),
        (None, [6, "fixed", 20, "red"]),
    ],
)
def test_values_are_written_into_what_is_there(given: Any, expected: Any):
    description = Descriptions(INFOS).get("Sampler")
    assert description is not None and rewritten(description, given, {"seed": 6, "name": "red"}) == expected


ODD: list[Any] = [
    {},
    {"input": 3},
    {"input": {"required": {"a": 3, "b": [], "c": [{}], "d": ["INT", 3]}, "optional": []}, "output": 4},
    {
        "input": {"required": {"d": ["INT"]}},
        "input_order": {"required": ["x", 3]},
        "output": [[], 3],
        "output_name": [],
    },
    7,
    None,
]


@pytest.mark.parametrize("entry", ODD)
def test_an_odd_description_is_no_obstacle(entry: Any):
    description = Descriptions({"Odd": entry}).get("Odd")
    assert description is not None and set(named_values(description, [1, 2])) <= {"d"}
