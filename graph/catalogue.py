"""The catalogue: every node by name, gathered from modules, immutable."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from graph.node import Node

AnyNode = Node[Any, Any]


class DuplicateNode(ValueError):
    """Two nodes with one name."""

    def __init__(self, name: str, first: AnyNode, second: AnyNode) -> None:
        self.name = name
        places = " and ".join(f"{node.function.__module__}.{node.function.__qualname__}" for node in (first, second))
        super().__init__(f"two nodes are called {name!r}: {places}; rename one of them")


class OwnNodesError(ValueError):
    """A file with somebody's own nodes cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"own nodes from {path}: {reason}")


class Catalogue(Mapping[str, AnyNode]):
    """Nodes by name. `Catalogue.gather(module, …)` collects every node a module defines."""

    def __init__(self, nodes: Iterable[AnyNode] = ()) -> None:
        self._nodes: dict[str, AnyNode] = {}
        for found in nodes:
            known = self._nodes.get(found.name)
            if known is not None and known is not found:
                raise DuplicateNode(found.name, known, found)
            self._nodes[found.name] = found

    @staticmethod
    def gather(*modules: ModuleType) -> "Catalogue":
        """Every node in the modules' namespaces; a node imported into several of them counts once."""
        found = (value for module in modules for value in vars(module).values())
        return Catalogue(cast(AnyNode, value) for value in found if isinstance(value, Node))

    def __or__(self, other: "Catalogue") -> "Catalogue":
        return Catalogue([*self.values(), *other.values()])

    def __getitem__(self, name: str) -> AnyNode:
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"<catalogue of {len(self)} nodes>"


def own_nodes(path: Path) -> Catalogue:
    """The nodes of a Python file, or of every Python file directly in a folder. Raises OwnNodesError."""
    if path.is_dir():
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith(("_", ".")))
        return Catalogue(found for file in files for found in own_nodes(file).values())
    if not path.is_file():
        raise OwnNodesError(path, "there is no such file or folder")
    return Catalogue.gather(_module(path))


def installed_nodes() -> Catalogue:
    """The nodes of installed packages: each names a module (or a catalogue) in the entry-point group."""
    found: list[AnyNode] = []
    for entry in entry_points(group="latentloom.nodes"):
        try:
            loaded = entry.load()
        except Exception as error:
            raise OwnNodesError(
                Path(entry.value), f"the entry point {entry.name!r} cannot be loaded: {error}"
            ) from error
        if not isinstance(loaded, Catalogue | ModuleType):
            kind = type(cast(object, loaded)).__name__
            raise OwnNodesError(
                Path(entry.value), f"the entry point {entry.name!r} is of type {kind}, not a module of nodes"
            )
        found += (loaded if isinstance(loaded, Catalogue) else Catalogue.gather(loaded)).values()
    return Catalogue(found)


def _module(path: Path) -> ModuleType:
    # The name carries the place, so that two files called nodes.py do not replace each other.
    place = blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()
    name = f"latentloom_own_{path.stem}_{place}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise OwnNodesError(path, "it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):
            raise OwnNodesError(path, f"{type(error).__name__}: {error}") from error
        raise
    return module
