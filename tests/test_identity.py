import sys
from collections.abc import Callable
from enum import Enum
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.catalogue import own_nodes
from graph.identity import code_identity, content_identity, digest, encode
from graph.keys import node_identity
from graph.node import Node, node
from graph.values import Value

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """A value with its types spelled out, so that == tells 1, 1.0 and True apart."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [typed(item) for item in value]  # pyright: ignore  # JSON of any depth
    if isinstance(value, dict):
        return "dict", {name: typed(item) for name, item in value.items()}  # pyright: ignore  # JSON of any depth
    return type(value).__name__, repr(value)


class Stitch(Enum):
    KNIT = "knit"


def test_what_looks_alike_differs():
    alike: list[object] = [
        1,
        1.0,
        True,
        "1",
        b"1",
        [],
        (),
        {},
        None,
        "",
        0,
        False,
        0.0,
        -0.0,
        Stitch.KNIT,
        "knit",
        set(),
    ]
    assert len({encode(value) for value in alike}) == len(alike)


@given(NESTED, NESTED)
def test_encodings_are_equal_exactly_when_values_are(a: object, b: object):
    assert (encode(a) == encode(b)) == (typed(a) == typed(b))


@given(st.lists(NESTED, min_size=1, max_size=5))
def test_no_encoding_is_the_beginning_of_another_list(values: list[object]):
    assert encode(values) != encode(values[:-1])
    assert encode([values]) != encode(values)
    assert not b"".join(map(encode, values)).startswith(encode(values))


@given(st.dictionaries(st.text(), PLAIN))
def test_the_order_of_mappings_and_sets_does_not_matter(values: dict[str, object]):
    assert encode(values) == encode(dict(reversed(values.items())))
    assert encode(set(values)) == encode(frozenset(reversed(values)))


def test_encodings_stay_the_same_from_version_to_version():
    document = {
        "seed": 2**64 - 1,
        "cfg": 7.5,
        "text": "a røse",
        "on": True,
        "list": [1, (2.0, None)],
        "stitch": Stitch.KNIT,
    }
    assert digest(encode(document)).hex() == "5505f88151a769db9efb688be9cf488d57583309f55fcf68bab10d643d99d6ff"
    assert encode([1, "a", {"b": 1.5}]) == b"l3:i1;s1:am1:s1:bd?\xf8\x00\x00\x00\x00\x00\x00"


def loaded(folder: Path, name: str, source: str, node_name: str = "Add") -> Node[Any, Any]:
    """A node that a file with this source declares."""
    file = folder / name / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text(f"{source}\n" if source.startswith('"') else f"from graph.node import node\n{source}\n")
    return own_nodes(file)[node_name]


def identities(folder: Path, *sources: str) -> int:
    """How many identities functions with these sources have, wherever they lie."""
    return len({code_identity(loaded(folder, str(at), source).function) for at, source in enumerate(sources)})


def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path):
    plain = "@node('Add')\ndef add(a: int) -> int:\n    return a + 1\n"
    dressed = "# why\n\n@node('Add')\ndef add(a: int) -> int:\n    '''Adds.'''\n    # one\n    return (a +\n       1)\n"
    assert identities(tmp_path, plain, dressed, '"""A module."""\nfrom graph.node import node\n' + plain) == 1


def test_code_counts(tmp_path: Path):
    source = "K = {}\n@node('Add')\ndef add(a: int) -> int:\n    return a + {}\n"
    assert identities(tmp_path, source.format(1, 1), source.format(1, 2), source.format(2, 1)) == 3


def in_package(folder: Path, monkeypatch: pytest.MonkeyPatch, helper: str) -> bytes:
    """The identity of a node in a package of two modules, the second of which is imported inside the function."""
    package = folder / "knitting"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text(helper)
    (package / "stitches.py").write_text(
        "from graph.node import node\n@node('Knit')\ndef knit(a: int) -> int:\n"
        "    from .helper import stitch\n    return stitch(a)\n"
    )
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for name in [name for name in sys.modules if name.startswith("knitting")]:
        monkeypatch.delitem(sys.modules, name)
    invalidate_caches()
    import knitting.stitches  # pyright: ignore  # written by this test

    return code_identity(knitting.stitches.knit.function)  # pyright: ignore  # written by this test


def test_code_of_imported_modules_of_the_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    helpers = ["def stitch(a): return a", "def stitch(a): return -a", "def stitch(a): return a  # the same"]
    found = [in_package(tmp_path / str(at), monkeypatch, helper) for at, helper in enumerate(helpers)]
    assert found[0] == found[2] != found[1]


def test_code_of_nodes_from_another_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = "from knitting.stitches import knit\n@node('Twice')\ndef twice(a: int) -> int:\n    return knit(a)\n"
    found = set[bytes]()
    for at, helper in enumerate(["def stitch(a): return a", "def stitch(a): return -a"]):
        in_package(tmp_path / f"package{at}", monkeypatch, helper)
        found.add(code_identity(loaded(tmp_path, str(at), source, "Twice").function))
    assert len(found) == 2


def typed_at_a_prompt(source: str) -> Callable[..., object]:
    names: dict[str, Any] = {"__name__": "prompt"}
    exec(source, names)
    return names["f"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x.upper()", "def f(x): return x.lower()"),
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x + 1", "def f(x): return x + 1.0"),
        ("def f(x): return map(lambda y: y + 1, x)", "def f(x): return map(lambda y: y + 2, x)"),
        ("def f(x): return x in {'a', 'b'}", "def f(x): return x in {'a', 'c'}"),
    ],
)
def test_functions_without_a_file_differ_by_their_bytecode(one: str, other: str):
    assert code_identity(typed_at_a_prompt(one)) == code_identity(typed_at_a_prompt(one + "  # the same"))
    assert code_identity(typed_at_a_prompt(one)) != code_identity(typed_at_a_prompt(other))


def test_what_a_function_captured_counts():
    def adding(amount: int) -> Node[Any, Any]:
        @node("Add")
        def add(value: int) -> int:
            return value + amount

        return add

    assert node_identity(adding(1)) == node_identity(adding(1)) != node_identity(adding(2))


def test_name_and_version_count():
    def same(value: int) -> int: ...

    nodes = [node("A")(same), node("B")(same), node("A", version=2)(same), node("A")(same)]
    assert len({node_identity(found) for found in nodes}) == 3


def test_a_file_that_is_no_source_is_identified_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    function = loaded(tmp_path, "a", "@node('Add')\ndef add(a: int) -> int:\n    return a\n").function
    Path(str(sys.modules[function.__module__].__file__)).write_bytes(b"\x00 def")
    assert len(code_identity(function)) == 32


def test_the_content_of_a_file_is_its_identity(tmp_path: Path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (content_identity(tmp_path / name) for name in "abc")
    assert a == b != c
    (tmp_path / "a").write_bytes(b"longer")
    assert content_identity(tmp_path / "a") != a


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path: Path):
    for folder, name, content in (("1", "x/a", b"1"), ("2", "x/a", b"1"), ("3", "x/b", b"1"), ("4", "x/a", b"2")):
        (tmp_path / folder / "x").mkdir(parents=True)
        (tmp_path / folder / name).write_bytes(content)
    first, *others = (content_identity(tmp_path / folder) for folder in "1234")
    assert [other == first for other in others] == [True, False, False]


def test_a_large_file_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("graph.identity.SMALL_FILE", 1 << 20)
    file = tmp_path / "weights"
    file.write_bytes(bytes(8 << 20))
    before = content_identity(file)
    with open(file, "r+b") as opened:
        opened.seek(-1, 2)
        opened.write(b"x")
    assert content_identity(file) != before


def test_a_missing_file_has_no_identity(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        content_identity(tmp_path / "none")


def test_values_know_their_size():
    from tests.toys import Cloth, Yarn

    assert Cloth((Yarn(), Yarn("blue" * 100))).nbytes > 400
    assert Value().nbytes == 64
