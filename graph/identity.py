"""What a key is made of: a canonical encoding of literals, the identity of code, the identity of files."""

import ast
import inspect
import os
import struct
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from pydantic_core import to_jsonable_python

SMALL_FILE = 64 * 1024 * 1024
"""Files up to this size are identified by all of their content."""
SAMPLE = 64 * 1024
SAMPLES = 64


def encode(value: object) -> bytes:
    """A canonical encoding: equal values of equal type give equal bytes, all others differ.

    Every part starts with a tag of its type and, where its length varies, its length, so that `1`, `1.0`, `True`,
    `"1"`, `[]` and `{}` differ and no two nestings coincide. The order of a mapping does not matter.
    """
    kind = type(value)
    if kind is str:
        data = cast(str, value).encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(data), data)
    if kind is bool:
        return b"t" if value else b"f"
    if kind is int:
        return b"i%d;" % cast(int, value)
    if kind is float:
        return b"d" + struct.pack(">d", value)
    if value is None:
        return b"n"
    if kind is bytes:
        return b"b%d:%b" % (len(cast(bytes, value)), cast(bytes, value))
    if kind is list or kind is tuple:
        items = [encode(item) for item in cast("Iterable[object]", value)]
        return b"l%d:%b" % (len(items), b"".join(items))
    if isinstance(value, Mapping):
        pairs = sorted((encode(key), encode(item)) for key, item in cast("Mapping[object, object]", value).items())
        return b"m%d:%b" % (len(pairs), b"".join(key + item for key, item in pairs))
    # An enum, a dataclass or a pydantic model: its JSON form, under the name of its type.
    return b"o" + encode(f"{kind.__module__}.{kind.__qualname__}") + encode(to_jsonable_python(value))


def digest(*parts: bytes) -> bytes:
    """32 bytes that stand for the parts."""
    return blake2b(b"".join(parts), digest_size=32).digest()


@lru_cache(maxsize=4096)
def code_identity(function: Callable[..., object]) -> bytes:
    """Identity of a function's code: its own module and every module of the same package that it imports.

    Comments, docstrings and layout do not count. A function without source (typed at a prompt) is identified by its
    bytecode.
    """
    module = inspect.getmodule(function)
    path = getattr(module, "__file__", None)
    if module is None or path is None or not os.path.exists(path):
        return _function_identity(function)
    return digest(*(_source_identity(name, str(file)) for name, file in _closure(module.__name__, Path(path))))


def _function_identity(function: Callable[..., object]) -> bytes:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        code = cast(Any, function).__code__
        return digest(code.co_code, repr([const for const in code.co_consts if not inspect.iscode(const)]).encode())
    return digest(_canonical(tree))


@lru_cache(maxsize=4096)
def _closure(name: str, path: Path) -> tuple[tuple[str, Path], ...]:
    """The module and, transitively, the modules of its own top-level package that it imports."""
    package = name.partition(".")[0]
    found: dict[str, Path] = {}
    pending = [(name, path)]
    while pending:
        current, file = pending.pop()
        if current in found:
            continue
        found[current] = file
        root = _root(current, file)
        for imported in _imports(current, str(file)):
            if imported.partition(".")[0] == package and root is not None:
                target = _module_file(root, imported)
                if target is not None:
                    pending.append((imported, target))
    return tuple(sorted(found.items()))


def _root(name: str, file: Path) -> Path | None:
    """The folder that holds the top-level package of the module."""
    depth = name.count(".") + (1 if file.name == "__init__.py" else 0)
    return file.parents[depth] if len(file.parents) > depth else None


def _module_file(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


@lru_cache(maxsize=4096)
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_bytes())


@lru_cache(maxsize=4096)
def _imports(name: str, path: str) -> tuple[str, ...]:
    found: set[str] = set()
    for item in ast.walk(_tree(path)):
        if isinstance(item, ast.Import):
            found |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            base = _absolute(name, path, item)
            found |= {base, *(f"{base}.{alias.name}" for alias in item.names)}
    return tuple(sorted(found))


def _absolute(name: str, path: str, item: ast.ImportFrom) -> str:
    if not item.level:
        return item.module or ""
    parts = name.split(".")
    up = item.level - (1 if path.endswith("__init__.py") else 0)
    return ".".join([*parts[: len(parts) - up], *([item.module] if item.module else [])])


@lru_cache(maxsize=4096)
def _source_identity(name: str, path: str) -> bytes:
    return digest(encode(name), _canonical(_tree(path)))


def _canonical(tree: ast.AST) -> bytes:
    """The tree without positions and docstrings, so that layout and wording do not change identities."""
    for item in ast.walk(tree):
        if isinstance(item, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and item.body:
            first = item.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                first.value.value = ""
    return f"{sys.version_info.major} {ast.dump(tree)}".encode()


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
