"""From API-format to an editor's document and back: the same workflow."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.catalogue import Catalogue
from graph.describe import object_info
from graph.node import node
from graph.problems import InvalidWorkflow
from graph.workflow import parse, read
from tests.canvas import INFOS, converted, fixture
from tests.toys import NOWHERE, Yarn, use
from workflows.documents import EXAMPLES
from workflows.editor.api_form import to_api
from workflows.editor.descriptions import DescribedInput, Descriptions
from workflows.editor.editor_form import to_editor
from workflows.editor.shapes import a_list, an_object

Json = dict[str, Any]
NAMES = [path.stem for path in EXAMPLES.glob("*.json")]


def there_and_back(document: Json, infos: Json = INFOS) -> Json:
    """Through an editor's document, as a file."""
    editor = json.dumps(to_editor(read(document), infos))
    found = to_api(json.loads(editor), infos)
    assert found.warnings == ()
    return found.document


@pytest.mark.parametrize("name", NAMES)
def test_every_example_comes_back_as_it_was(name: str):
    document = json.loads((EXAMPLES / f"{name}.json").read_text())
    back = there_and_back(document)
    assert back == document and list(back) == list(document)


@pytest.mark.parametrize("name", ["text_to_image", "reroutes_primitives_muted_bypassed", "subgraphs", "version_1"])
def test_what_an_editor_saved_comes_back_as_it_would_run(name: str):
    document = converted(fixture(name)).document
    assert there_and_back(document) == document


@pytest.mark.parametrize("name", NAMES)
def test_nodes_stand_to_the_right_of_what_they_need_and_not_on_each_other(name: str):
    document = to_editor(parse((EXAMPLES / f"{name}.json").read_bytes()), INFOS)
    boxes = {each["id"]: (*each["pos"], *each["size"]) for each in document["nodes"]}
    for _, source, _, target, _, _ in document["links"]:
        assert boxes[source][0] + boxes[source][2] < boxes[target][0]
    for one, (x, y, width, height) in boxes.items():
        for other, (left, top, _, _) in boxes.items():
            assert one == other or not (x <= left < x + width and y <= top < y + height)


def test_slots_and_links_name_each_other():
    document = to_editor(parse((EXAMPLES / "text_to_image.json").read_bytes()), INFOS)
    nodes = {each["id"]: each for each in document["nodes"]}
    assert (document["version"], document["last_node_id"], document["last_link_id"]) == (0.4, 7, 9)
    for link, source, index, target, slot, kind in document["links"]:
        assert nodes[target]["inputs"][slot] == {
            "name": nodes[target]["inputs"][slot]["name"],
            "type": kind,
            "link": link,
        }
        assert link in nodes[source]["outputs"][index]["links"] and nodes[source]["outputs"][index]["type"] == kind
    assert nodes[5]["widgets_values"] == [11, "fixed", 20, 2.0, "euler", "normal", 1.0]
    assert nodes[2]["title"] == "Prompt" and "title" not in nodes[5]


def test_a_linked_widget_is_drawn_as_an_input_and_an_optional_input_as_one():
    document = {
        "a": use("SolidMask", value=1.0, width=8, height=8),
        "b": use("ImageCompositeMasked", x=["a", 0], y=0, resize_source=False, mask=["a", 0]),
    }
    slots = to_editor(read(document), INFOS)["nodes"][1]["inputs"]
    assert [slot["name"] for slot in slots] == ["destination", "source", "mask", "x"]
    assert slots[3] == {"name": "x", "type": "INT", "link": 2, "widget": {"name": "x"}}
    assert (slots[0]["link"], slots[2]["shape"]) == (None, 7)


def test_what_was_left_out_comes_back_with_its_default():
    document = {"1": use("KSampler", title="S", seed=3)}
    assert there_and_back(document)["1"]["inputs"] == {
        "seed": 3, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0
    }  # fmt: skip


def test_what_no_widget_holds_is_kept():
    @node("Knit")
    def knit(yarn: Yarn, rows: list[int], size: int | str = 3, colour: str | None = None) -> Yarn:
        return yarn

    infos = object_info(Catalogue([knit]), NOWHERE)
    inputs = {"rows": {"__value__": [1, 2]}, "size": 4, "colour": None, "yarn": ["1", 0], "pattern": {"a": "b"}}
    document = {"1": use("Knit", title="Scarf", **inputs)}
    assert there_and_back(document, infos) == document


def test_a_prompt_means_itself_and_not_a_choice():
    document = {"1": use("CLIPTextEncode", title="P", text=r"{a|b} // \{c\} /* http://d */")}
    assert there_and_back(document) == document


@pytest.mark.parametrize("node_id", ["1", "01", "1.5", "x", "5:12", "", "9" * 40, "٣", str(2**53)])
def test_every_id_comes_back(node_id: str):
    document = {
        node_id: use("LoadImage", title="L", image="a.png"),
        "7": use("SaveImage", title="S", filename_prefix=""),
    }
    document["7"]["inputs"]["images"] = [node_id, 0]
    assert there_and_back(document) == document


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"images": ["9", 0]}, "missing_node"),
        ({"images": ["1", 2]}, "missing_output"),
        ({"images": ["1", -1]}, "missing_output"),
        ({"images": ["1"]}, "bad_link"),
        ({"images": [True, 0]}, "bad_link"),
        ({"images": ["1", 0.5]}, "bad_link"),
        ({"images": ["1", float("inf")]}, "bad_link"),
        ({"images": ["1", 10**400]}, "missing_output"),
        ({"images": []}, "bad_link"),
    ],
)
def test_a_link_that_cannot_be_drawn_is_refused(inputs: Json, kind: str):
    document = {"1": use("LoadImage", image="a.png"), "2": use("SaveImage", **inputs)}
    with pytest.raises(InvalidWorkflow) as caught:
        to_editor(read(document), INFOS)
    assert [(problem.kind, problem.node_id, problem.input) for problem in caught.value.problems] == [
        (kind, "2", "images")
    ]


def test_unknown_classes_and_those_that_only_editors_have_are_refused():
    infos = {**INFOS, "Reroute": INFOS["ImageInvert"]}
    with pytest.raises(InvalidWorkflow) as caught:
        to_editor(read({"1": use("KSamplr"), "2": use("Reroute")}), infos)
    assert [problem.suggestion for problem in caught.value.problems] == ["did you mean 'KSampler'?", None]
    assert "a node of their own by this name" in caught.value.problems[1].message


def test_a_circle_is_drawn_and_comes_back():
    document = {"1": use("ImageInvert", title="A", image=["2", 0]), "2": use("ImageInvert", title="B", image=["1", 0])}
    assert there_and_back(document) == document


# Random workflows over the whole catalogue

CATALOGUE = Descriptions(INFOS)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def literal(declared: DescribedInput) -> st.SearchStrategy[Any]:
    match declared.widget_type:
        case "INT":
            return st.integers(0, 2**64 - 1)
        case "FLOAT":
            return st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 100)
        case "BOOLEAN":
            return st.booleans()
        case "COMBO":
            return st.sampled_from(declared.choices) if declared.choices else TEXT
        case _:
            # A prefix with %…% in it is filled in on the way back, as an editor would.
            return TEXT.filter(lambda text: "%" not in text)


@st.composite
def workflows(draw: st.DrawFn) -> Json:
    ids = draw(st.lists(st.integers(0, 99).map(str) | TEXT, min_size=1, max_size=12, unique=True))
    document: Json = {}
    for node_id in ids:
        kind = draw(st.sampled_from(sorted(INFOS)))
        description = CATALOGUE.get(kind)
        assert description is not None
        sources = [
            [other, index] for other in document for index in range(len(INFOS[document[other]["class_type"]]["output"]))
        ]
        inputs: Json = {}
        for name, declared in description.inputs.items():
            if sources and draw(st.booleans()):
                inputs[name] = draw(st.sampled_from(sources))
            elif declared.is_widget:
                inputs[name] = draw(literal(declared))
        document[node_id] = use(kind, **inputs) | {"_meta": {"title": draw(TEXT)}}
    return document


@given(workflows())
@settings(max_examples=300, deadline=None)
def test_any_workflow_over_the_catalogue_comes_back(document: Json):
    assert there_and_back(document) == document


# Documents of any kind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    *("nodes", "links", "definitions", "subgraphs", "id", "type", "inputs", "outputs", "link", "name", "mode", "order"),
    *("title", "widget", "widgets_values", "properties", "proxyWidgets", "origin_id", "origin_slot"),
)
WORDS = ("KSampler", "SaveImage", "Reroute", "PrimitiveNode", "Note", "s", "seed", "text", "*", "IMAGE")
SHAPED = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 5) | st.sampled_from(WORDS) | st.floats(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)


def converts_or_is_refused(document: object) -> None:
    try:
        found = to_api(document, INFOS)
    except InvalidWorkflow as error:
        assert error.problems and all(problem.message for problem in error.problems)
    else:
        assert read(found.document) and all(isinstance(warning, str) for warning in found.warnings)


@given(
    JSON | SHAPED | st.fixed_dictionaries({"nodes": st.lists(SHAPED), "links": st.lists(SHAPED), "definitions": SHAPED})
)
@settings(max_examples=500, deadline=None)
def test_any_json_is_converted_or_refused(document: object):
    converts_or_is_refused(document)


def keys_of(value: object) -> list[Any]:
    """The keys of an object, the indices of a list."""
    return [*an_object(value)] or [*range(len(a_list(value)))]


@given(st.data(), st.sampled_from(["text_to_image", "reroutes_primitives_muted_bypassed", "subgraphs", "version_1"]))
@settings(max_examples=500, deadline=None)
def test_a_document_with_anything_in_the_wrong_place_is_converted_or_refused(data: st.DataObject, name: str):
    document = fixture(name)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = document
        while keys := keys_of(place):
            key = data.draw(st.sampled_from(keys))
            if keys_of(place[key]) and data.draw(st.integers(0, 3)):
                place = place[key]
                continue
            if data.draw(st.booleans()):
                place[key] = data.draw(JSON | st.sampled_from([-10, -20, "1", 2, 4, *WORDS]))
            else:
                del place[key]
            break
    converts_or_is_refused(document)


def test_a_document_nested_without_end_is_converted_or_refused():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for place in ("title", "mode", "properties", "widgets_values", "id", "type", "inputs", "order"):
        converts_or_is_refused({"nodes": [{"id": 1, "type": "LoadImage", place: deep}]})
    converts_or_is_refused({"nodes": [], "links": [deep, [1, 2, 3, deep]], "definitions": {"subgraphs": [deep]}})


def test_a_long_chain_of_nodes_comes_back():
    document: Json = {"0": use("LoadImage", title="Load Image", image="boat.png")}
    for at in range(1, 5000):
        document[str(at)] = use("ImageInvert", title="Invert Image", image=[str(at - 1), 0])
    assert there_and_back(document) == document
