import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import graph.catalogue
from graph.catalogue import Catalogue, DuplicateNode, OwnNodesError, installed_nodes, own_nodes
from graph.node import node
from tests.toys import Yarn

OWN = "from graph.node import node\n\n@node({name!r})\ndef own(number: int = 1) -> int:\n    return number + {by}\n"


@node("Spin")
def spin() -> Yarn: ...


@node("Twist")
def twist(yarn: Yarn) -> Yarn: ...


def module(**names: object) -> ModuleType:
    made = ModuleType("made")
    vars(made).update(names)
    return made


def own(folder: Path, name: str, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source)
    return folder / name


def test_nodes_are_gathered_from_modules():
    assert list(Catalogue.gather(module(spin=spin, number=7), module(twist=twist))) == ["Spin", "Twist"]


def test_a_node_imported_twice_counts_once():
    assert len(Catalogue.gather(module(a=spin, b=spin), module(spin=spin))) == 1


def test_two_nodes_with_one_name_are_refused():
    other = node("Spin")(twist.function)
    with pytest.raises(DuplicateNode, match=r"two nodes are called 'Spin': .*spin and .*twist; rename one") as caught:
        Catalogue([spin, twist, spin, other])
    assert caught.value.name == "Spin"


def test_a_catalogue_cannot_be_changed():
    catalogue = Catalogue([spin])
    with pytest.raises(TypeError):
        catalogue["Twist"] = twist  # pyright: ignore  # the mistake that is tested
    assert catalogue | Catalogue([twist]) is not catalogue


def test_own_nodes_come_from_a_file(tmp_path: Path):
    (found,) = own_nodes(own(tmp_path, "mine.py", OWN.format(name="Mine", by=1))).values()
    assert found(number=2) == 3


def test_own_nodes_come_from_every_file_of_a_folder(tmp_path: Path):
    for name in ("b", "a", "_hidden"):
        own(tmp_path, f"{name}.py", OWN.format(name=name.upper(), by=1))
    own(tmp_path, "notes.txt", "no code")
    assert list(own_nodes(tmp_path)) == ["A", "B"]


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path: Path):
    first = own_nodes(own(tmp_path / "1", "mine.py", OWN.format(name="One", by=1)))
    second = own_nodes(own(tmp_path / "2", "mine.py", OWN.format(name="Two", by=2)))
    assert [found(number=0) for found in (first | second).values()] == [1, 2]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def", "SyntaxError: invalid syntax"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("from graph.node import node\n@node('X')\ndef x(a) -> int: ...", "parameter 'a' has no annotation"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, source: str, message: str):
    file, before = own(tmp_path, "mine.py", source), set(sys.modules)
    with pytest.raises(OwnNodesError) as caught:
        own_nodes(file)
    assert caught.value.path == file
    assert message in str(caught.value)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["none.py", "none", "mine.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str):
    own(tmp_path, "mine.txt", "hello")
    with pytest.raises(OwnNodesError, match="no such file or folder|not a Python file"):
        own_nodes(tmp_path / name)


def installed(monkeypatch: pytest.MonkeyPatch, value: str) -> Catalogue:
    """The nodes of a package that says this in the entry-point group."""
    entry = EntryPoint("mine", value, "latentloom.nodes")
    monkeypatch.setattr(graph.catalogue, "entry_points", lambda group: EntryPoints([entry]).select(group=group))  # pyright: ignore  # a stand-in
    return installed_nodes()


def test_installed_packages_bring_nodes(monkeypatch: pytest.MonkeyPatch):
    brought = SimpleNamespace(nodes=module(spin=spin), catalogue=Catalogue([twist]), number=7)
    monkeypatch.setitem(sys.modules, "package_of_nodes", brought)
    assert list(installed(monkeypatch, "package_of_nodes:nodes")) == ["Spin"]
    assert list(installed(monkeypatch, "package_of_nodes:catalogue")) == ["Twist"]
    with pytest.raises(OwnNodesError, match="the entry point 'mine' is of type int, not a module of nodes"):
        installed(monkeypatch, "package_of_nodes:number")


def test_an_installed_package_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OwnNodesError, match="the entry point 'mine' cannot be loaded: No module named 'gone'"):
        installed(monkeypatch, "gone:nodes")
