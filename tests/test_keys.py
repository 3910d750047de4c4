from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.keys import Key, identities, key_of
from graph.node import composite, node
from graph.resolve import Graph, resolve
from graph.values import INJECTED, Service
from graph.workflow import read
from tests.test_resolve import fetch
from tests.toys import Yarn, graph_of, use


@node("Spin")
def spin(colour: str = "red", length: int = 1, weight: float = 1, even: bool = True) -> Yarn: ...


@node("Twist")
def twist(a: Yarn, b: Yarn | None = None, anything: Any = None) -> Yarn: ...


@node("Dice", impure=True)
def dice(sides: int = 6) -> Yarn: ...


@node("Read")
def read_name(yarn: Yarn | None = None) -> str: ...


NODES = [spin, twist, dice, read_name, fetch]


def keys_of(graph: Graph) -> dict[str, Key | None]:
    keys: dict[str, Key | None] = {}
    for step in graph.steps:
        keys[step.id] = key_of(step, keys)
    return keys


def key(document: dict[str, Any], target: str = "end", nodes: list[Any] = NODES) -> Key | None:
    return keys_of(graph_of(nodes, document, [target]))[target]


def twisted(anything: Any) -> Key | None:
    return key({"spin": use("Spin"), "end": use("Twist", a=["spin", 0], anything={"__value__": anything})})


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Nodes that link to earlier ones by index, the last of which needs some of them."""
    used: list[dict[str, Any]] = [use("Spin")]
    for at in range(1, draw(st.integers(1, 6))):
        links: dict[str, Any] = {name: [draw(st.integers(0, at - 1)), 0] for name in draw(st.sampled_from(["a", "ab"]))}
        colour = draw(st.sampled_from(["red", "blue"]))
        used.append(draw(st.sampled_from([use("Twist", **links), use("Spin", length=at, colour=colour)])))
    return used


def named(nodes: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """A document of nodes under these names."""
    return {
        name: node
        | {"inputs": {at: [names[v[0]], 0] if isinstance(v, list) else v for at, v in node["inputs"].items()}}
        for name, node in zip(names, nodes, strict=True)
    }


@given(graphs(), st.randoms())
def test_keys_do_not_depend_on_ids_titles_or_order(nodes: list[dict[str, Any]], random: Any):
    before = named(nodes, [str(at) for at in range(len(nodes))])
    names = [f"node {at}" for at in range(len(nodes))]
    random.shuffle(names)
    after = list(named(nodes, names).items())
    random.shuffle(after)
    shuffled = {name: {"_meta": {"title": name}, **dict(reversed(used.items()))} for name, used in after}
    assert key(before, str(len(nodes) - 1)) == key(shuffled, names[-1])


@given(graphs())
def test_different_steps_have_different_keys(nodes: list[dict[str, Any]]):
    document = named(nodes, [str(at) for at in range(len(nodes))])

    def unfolded(name: str) -> Any:
        inputs = ({"colour": "red", "length": 1} if document[name]["class_type"] == "Spin" else {}) | document[name][
            "inputs"
        ]
        return sorted((at, repr(unfolded(v[0]) if isinstance(v, list) else v)) for at, v in inputs.items())  # pyright: ignore  # JSON of any depth

    steps = {repr(unfolded(name)) for name in document}
    assert len(set(keys_of(graph_of(NODES, document, list(document))).values())) == len(steps)


def test_what_looks_alike_differs():
    alike: list[Any] = [1, 1.0, True, "1", [], {}, None, "", 0, False, [1], [[1]], {"1": 1}, {"1": "1"}]
    assert len({twisted(value) for value in alike}) == len(alike)


def test_what_is_read_as_the_same_is_the_same():
    assert key({"end": use("Spin", length="7", weight=2)}) == key({"end": use("Spin", length=7.0, weight="2.0")})


def test_a_default_left_out_is_the_default_spelled_out():
    spelled = use("Spin", colour="red", length=1, weight=1, even=True)
    assert key({"end": use("Spin")}) == key({"end": spelled}) == key({"end": use("Spin", weight=1.0)})


def test_an_optional_value_left_out_differs_from_any_given():
    alone = {"spin": use("Spin"), "end": use("Twist", a=["spin", 0])}
    both = {"spin": use("Spin"), "end": use("Twist", a=["spin", 0], b=["spin", 0])}
    assert key(alone) != key(both)


def test_which_input_a_link_ends_in_matters():
    def woven(a: str, b: str) -> Key | None:
        return key({"1": use("Spin"), "2": use("Spin", length=2), "end": use("Twist", a=[a, 0], b=[b, 0])})

    assert woven("1", "2") != woven("2", "1")


def test_which_output_a_link_starts_from_matters():
    from tests.toys import Pair

    @node("Split")
    def split() -> Pair: ...

    found = [key({"s": use("Split"), "end": use("Twist", a=["s", at])}, nodes=[split, twist]) for at in (0, 1)]
    assert found[0] != found[1]


def test_an_impure_node_and_everything_after_it_have_no_key():
    document = {"dice": use("Dice"), "t": use("Twist", a=["dice", 0]), "end": use("Twist", a=["t", 0])}
    assert set(keys_of(graph_of(NODES, document, ["end"])).values()) == {None}


def test_a_file_whose_name_arrives_by_a_link_has_no_key():
    document = {"name": use("Read"), "end": use("Fetch", file=["name", 0])}
    assert key(document, "name") is not None
    assert key(document) is None


def test_the_version_of_a_node_is_in_its_keys():
    def same() -> Yarn: ...

    found = [key({"end": use("N")}, nodes=[node("N", version=version)(same)]) for version in (1, 2, 1)]
    assert found[0] == found[2] != found[1]


def test_the_content_of_a_file_is_in_the_key(tmp_path: Path):
    def fetched(content: str, name: str = "a.txt") -> Key | None:
        (tmp_path / "input").mkdir(exist_ok=True)
        (tmp_path / "input" / name).write_text(content)
        graph = resolve(read({"end": use("Fetch", file=name)}), Catalogue([fetch]), Folders.below(tmp_path), ["end"])
        return keys_of(graph)["end"]

    first = fetched("wool")
    assert fetched("cotton") != first
    assert fetched("wool") == first
    assert fetched("wool", "b.txt") != first


def test_a_service_with_an_identity_enters_the_keys_of_those_who_may_use_it():
    class Dye(Service): ...

    @node("Colour")
    def colour(dye: Dye = INJECTED) -> Yarn: ...

    @composite("Plan")
    def plan() -> Yarn: ...

    document = {"a": use("Colour"), "b": use("Plan"), "c": use("Spin")}
    steps = graph_of([colour, plan, spin], document, list(document)).steps

    def keys(stated: str | None) -> list[Key | None]:
        services: dict[type[Service], str] = {Dye: stated} if stated else {}
        return [key_of(step, {}, services=services) for step in steps]

    plain, red, blue = (keys(stated) for stated in (None, "red", "blue"))
    assert [len(set(found)) for found in zip(plain, red, blue, strict=True)] == [3, 3, 1]


def test_only_services_that_state_an_identity_have_one():
    class Dye(Service):
        identity = "red"

    assert identities({Service: Service(), Dye: Dye()}) == {Dye: "red"}
