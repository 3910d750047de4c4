import json
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from graph.catalogue import Catalogue
from graph.describe import node_info, node_schema, object_info
from graph.folders import Folders
from graph.literals import Widget
from graph.node import Stage, composite, node
from graph.values import INJECTED
from tests.toys import NOWHERE, Note, Pair, Yarn, problems_of, use


class Stitch(Enum):
    KNIT = "knit"
    PURL = "purl"


@dataclass(frozen=True)
class Shelf:
    def names(self, folders: Folders) -> list[str]:
        return ["a.txt", "b.txt"]

    def locate(self, folders: Folders, name: str) -> Path:
        return Path(__file__)


Seed = Annotated[int, Field(ge=0, lt=2**64), Widget(control_after_generate=True)]


@node("Knit", category="wool", title="Knit a cloth")
def knit(
    yarn: Yarn,
    pattern: Annotated[str, Widget(multiline=True), Field(description="Row by row.")],
    seed: Seed = 0,
    gauge: Annotated[float, Field(gt=0, le=10), Widget(step=0.5)] = 1,
    stitch: Stitch = Stitch.KNIT,
    side: Literal["front", "back"] = "front",
    file: Annotated[str, Shelf()] = "a.txt",
    tight: bool = False,
    rows: list[int] | None = None,
    most: int | None = None,
    second: Yarn | None = None,
    folders: Folders = INJECTED,
) -> Pair:
    """Knits.

    With care.
    """
    ...


@node("Show")
def show(yarn: Yarn) -> Note: ...


@node("Spin")
def spin() -> Yarn: ...


INFO = node_info(knit, NOWHERE)


def test_an_entry_has_the_shape_that_editors_expect():
    assert {name: value for name, value in INFO.items() if name not in ("input", "input_order")} == {
        "output": ["YARN", "YARN"],
        "output_is_list": [False, False],
        "output_name": ["warp", "weft"],
        "name": "Knit",
        "display_name": "Knit a cloth",
        "description": "Knits.\n\nWith care.",
        "python_module": "tests.test_describe",
        "category": "wool",
        "output_node": False,
    }


@pytest.mark.parametrize("stage", ["experimental", "deprecated"])
def test_editors_are_told_what_is_not_for_everybody(stage: Stage):
    @node("Felt", stage=stage)
    def felt() -> Yarn: ...

    @composite("Mill", stage=stage)
    def mill() -> Yarn: ...

    for each in (felt, mill):
        assert node_info(each, NOWHERE)[stage] is True


def test_inputs_are_required_unless_they_can_stay_empty():
    assert INFO["input_order"] == {
        "required": ["yarn", "pattern", "seed", "gauge", "stitch", "side", "file", "tight"],
        "optional": ["rows", "most", "second"],
    }
    assert {name: list(inputs) for name, inputs in INFO["input"].items()} == INFO["input_order"]


DESCRIBED: list[tuple[str, list[Any]]] = [
    ("yarn", ["YARN"]),
    ("pattern", ["STRING", {"multiline": True, "tooltip": "Row by row."}]),
    ("seed", ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}]),
    ("gauge", ["FLOAT", {"default": 1.0, "min": 0, "max": 10, "step": 0.5}]),
    ("stitch", [["knit", "purl"], {"default": "knit"}]),
    ("side", [["front", "back"], {"default": "front"}]),
    ("file", [["a.txt", "b.txt"], {"default": "a.txt"}]),
    ("tight", ["BOOLEAN", {"default": False}]),
    ("rows", ["*", {}]),
    ("most", ["INT", {}]),
    ("second", ["YARN"]),
]


@pytest.mark.parametrize(("name", "described"), DESCRIBED)
def test_how_an_input_is_described(name: str, described: list[Any]):
    assert (INFO["input"]["required"] | INFO["input"]["optional"])[name] == described


def test_an_output_node_says_so():
    info = object_info(Catalogue([show, knit]), NOWHERE)
    assert list(info) == ["Show", "Knit"]
    assert (info["Show"]["output_node"], info["Show"]["output"]) == (True, [])


def test_descriptions_are_json():
    for describe in (node_info, node_schema):
        assert json.loads(json.dumps(describe(knit, NOWHERE), allow_nan=False)) == describe(knit, NOWHERE)


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits a JSON Schema, as far as ours use it."""
    if "anyOf" in schema:
        return any(fits(option, value) for option in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    match schema.get("type"), value:
        case "null", None:
            return True
        case ("boolean", bool()) | ("string", str()):
            return True
        case ("integer" | "number") as kind, int() | float() if not isinstance(value, bool):
            return (
                (kind == "number" or float(value).is_integer())
                and schema.get("minimum", value) <= value <= schema.get("maximum", value)
                and value > schema.get("exclusiveMinimum", value - 1)
                and value < schema.get("exclusiveMaximum", value + 1)
            )
        case "array", [*items]:
            inner = schema.get("prefixItems") or [schema["items"]] * len(items)
            return len(inner) == len(items) and all(map(fits, inner, items))
        case "object", {"__value__": wrapped}:
            return fits(schema["properties"]["__value__"], wrapped)
        case _:
            return False


LITERALS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12) | st.integers(),
    st.floats(-1e9, 1e9),
    st.sampled_from(["knit", "front", "a.txt", "x"]),
    st.fixed_dictionaries({"__value__": st.none() | st.lists(st.integers() | st.text(max_size=1), max_size=2)}),
)


@given(st.sampled_from([name for name, declared in knit.inputs.items() if declared.literal]), LITERALS)
def test_what_the_schema_accepts_resolves(name: str, value: Any):
    document = {"spin": use("Spin"), "end": use("Knit", yarn=["spin", 0], **{"pattern": "", name: value})}
    if fits(node_schema(knit, NOWHERE)["properties"][name], value):
        assert problems_of([knit, spin], document, ["end"]) == ()


def test_the_schema_names_what_is_required_and_where_links_go():
    schema = node_schema(knit, NOWHERE)
    assert schema["required"] == ["yarn", "pattern"]
    assert fits(schema["properties"]["yarn"], ["spin", 0])
    assert not fits(schema["properties"]["yarn"], ["spin", -1])
    assert fits(schema["properties"]["seed"], ["spin", 0])


def test_importing_the_engine_imports_neither_torch_nor_http():
    code = (
        "import importlib, pkgutil, sys, graph\n"
        "[importlib.import_module(f'graph.{found.name}') for found in pkgutil.iter_modules(graph.__path__)]\n"
        "print([name for name in ('torch', 'aiohttp', 'diffusers', 'transformers', 'numpy', 'networkx', 'nodes') "
        "if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
