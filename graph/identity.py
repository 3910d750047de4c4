"""What a key is made of: a canonical encoding of literals, the identity of code, the identity of files."""

import ast
import inspect
import os
import struct
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import CellType, CodeType, FunctionType, NoneType
from typing import cast

from pydantic_core import to_jsonable_python

from graph.node import Node

SMALL_FILE = 64 * 1024 * 1024
"""Files up to this size are identified by all of their content."""
SAMPLE = 64 * 1024
SAMPLES = 64


def encode(value: object) -> bytes:
    """A canonical encoding: the same value of the same type gives the same bytes, all others differ.

    Every part starts with a tag of its type and, where its length varies, its length, so that `1`, `1.0`, `True`,
    `"1"`, `[]` and `{}` differ and no two nestings coincide. The order of mappings and sets does not matter.
    """
    kind = type(value)
    if kind is str:
        data = cast(str, value).encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(data), data)
    if kind is bool:
        return b"t" if value else b"f"
    if kind is int:
        return b"i%x;" % cast(int, value)
    if kind is float:
        return b"d" + struct.pack(">d", value)
    if value is None:
        return b"n"
    if kind is bytes:
        return b"b%d:%b" % (len(cast(bytes, value)), cast(bytes, value))
    if kind is list or kind is tuple:
        items = [encode(item) for item in cast("Iterable[object]", value)]
        return b"%b%d:%b" % (b"l" if kind is list else b"u", len(items), b"".join(items))
    if kind is set or kind is frozenset:
        items = sorted(encode(item) for item in cast("Iterable[object]", value))
        return b"e%d:%b" % (len(items), b"".join(items))
    if isinstance(value, Mapping):
        pairs = sorted((encode(key), encode(item)) for key, item in cast("Mapping[object, object]", value).items())
        return b"m%d:%b" % (len(pairs), b"".join(key + item for key, item in pairs))
    # An enum, a dataclass or a pydantic model: its JSON form, under the name of its type.
    return b"o" + encode(f"{kind.__module__}.{kind.__qualname__}") + encode(to_jsonable_python(value))


def digest(*parts: bytes) -> bytes:
    """32 bytes that stand for the parts."""
    return blake2b(b"".join(parts), digest_size=32).digest()


def code_identity(function: Callable[..., object]) -> bytes:
    """Identity of a function's code: its own module and every module it imports from the packages of nodes.

    Comments, docstrings and layout do not count; numbers and texts that the function captured do. A function without
    a file (typed at a prompt) is identified by itself alone.
    """
    module = inspect.getmodule(function)
    path = getattr(module, "__file__", None)
    if module is None or path is None or not os.path.exists(path):
        source = _function_identity(function)
    else:
        source = _module_identity(module.__name__, Path(path))
    plain = cast(FunctionType, inspect.unwrap(function))
    cells = zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
    captured = {name: value for name, cell in cells if isinstance(value := _content(cell), _CAPTURED)}
    return digest(source, encode(captured)) if captured else source


_CAPTURED = (bool, int, float, str, bytes, NoneType)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _CAPTURED


def _function_identity(function: Callable[..., object]) -> bytes:
    try:
        return digest(_canonical(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    except (OSError, TypeError, SyntaxError):
        return digest(encode(_code_parts(cast(FunctionType, function).__code__)))


def _code_parts(code: CodeType) -> list[object]:
    """Bytecode with the names and constants it refers to by number; inner functions likewise."""
    return [code.co_code, code.co_names, code.co_freevars, [_constant(const) for const in code.co_consts]]


def _constant(const: object) -> object:
    match const:
        case CodeType():
            return _code_parts(const)
        case tuple() | frozenset():
            items = [_constant(item) for item in cast("Iterable[object]", const)]
            return items if isinstance(const, tuple) else {encode(item) for item in items}
        case bool() | int() | float() | str() | bytes() | None:
            return const
        case _:  # `...` and complex numbers
            return {"constant": repr(const)}


@lru_cache(maxsize=4096)
def _module_identity(name: str, path: Path) -> bytes:
    """Identity of a module and of the modules it imports, transitively, from its own package or those of its nodes."""
    roots = _roots(name, path)
    found: dict[str, bytes] = {}
    pending = [(name, path)]
    while pending:
        current, file = pending.pop()
        if current in found:
            continue
        source = _read_source(current, file)
        found[current] = source.identity
        for imported in source.imports:
            root = roots.get(imported.partition(".")[0])
            if root is not None and imported not in found and (target := _module_file(root, imported)) is not None:
                pending.append((imported, target))
    # A file of somebody's own nodes has its place in its module's name; its code is the same wherever it lies.
    found[""] = found.pop(name)
    return digest(encode(found))


def _roots(name: str, path: Path) -> dict[str, Path]:
    """The top-level packages whose code counts, each with the folder that holds it.

    They are the module's own, and those of nodes it uses: a composite is what it calls.
    """
    used = {value.function.__module__ for value in vars(sys.modules[name]).values() if isinstance(value, Node)}
    files = {name: path} | {module: Path(file) for module in used if (file := sys.modules[module].__file__)}
    return {module.partition(".")[0]: root for module, file in files.items() if (root := _root(module, file))}


def _root(name: str, file: Path) -> Path | None:
    """The folder that holds the top-level package of the module."""
    depth = name.count(".") + (1 if file.name == "__init__.py" else 0)
    return file.parents[depth] if len(file.parents) > depth else None


@lru_cache(maxsize=16384)
def _module_file(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


@dataclass(frozen=True, slots=True)
class _Source:
    """What matters of a module's file: the identity of its code and the names of modules it may import."""

    identity: bytes
    imports: tuple[str, ...]


@lru_cache(maxsize=4096)
def _read_source(name: str, path: Path) -> _Source:
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # compiled, or changed since it was imported
        return _Source(digest(content), ())
    imports = tuple(_imports(tree, name, path))
    return _Source(digest(_canonical(tree)), imports)


def _imports(tree: ast.Module, name: str, path: Path) -> set[str]:
    found: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            found |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            base = _absolute(name, path, item)
            found |= {base, *(f"{base}.{alias.name}" for alias in item.names)}
    return found


def _absolute(name: str, path: Path, item: ast.ImportFrom) -> str:
    if not item.level:
        return item.module or ""
    parts = name.split(".")
    up = item.level - (1 if path.name == "__init__.py" else 0)
    return ".".join([*parts[: len(parts) - up], *([item.module] if item.module else [])])


def _canonical(tree: ast.AST) -> bytes:
    """The tree without positions and docstrings, so that layout and wording do not change identities.

    Takes the docstrings out of the tree it is given.
    """
    for item in ast.walk(tree):
        if isinstance(item, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and item.body:
            match item.body[0]:
                case ast.Expr(value=ast.Constant(value=str())):
                    del item.body[0]
                case _:
                    pass
    return ast.dump(tree).encode("utf-8", "surrogatepass")


def content_identity(path: Path) -> str:
    """Identity of a file's content, or of a folder's: the names and contents of the files in it.

    Files above 64 MiB are identified by size, time of change and 64 samples spread over them: reading seven
    gigabytes before every first step would cost more than it tells. Raises OSError.
    """
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.is_file())
        parts = [encode(item.relative_to(path).as_posix()) + content_identity(item).encode() for item in files]
        return digest(b"folder", *parts).hex()
    stat = path.stat()
    return _file_identity(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_identity(path: str, size: int, changed: int) -> str:
    hasher = blake2b(digest_size=32)
    with open(path, "rb") as file:
        if size <= SMALL_FILE:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
        else:
            hasher.update(encode(["sampled", size, changed]))
            for index in range(SAMPLES):
                file.seek(index * (size - SAMPLE) // (SAMPLES - 1))
                hasher.update(file.read(SAMPLE))
    return hasher.hexdigest()
