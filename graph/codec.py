"""Values as data: a tree of JSON and blocks of bytes. What has no faithful form is refused, never guessed.

Literals, tuples, lists, dicts, paths and frozen dataclasses are written field by field, so a new type of value needs no
code here. What holds a block of numbers (a tensor) is written by a `BlockCodec`, which the engine is given. Reading
imports nothing and runs no code of the data: a dataclass is found by name among the modules that are loaded already,
and its fields are set as they were.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, cast

Tree = Any
"""What JSON can say."""


class NoCodec(TypeError):
    """A value cannot be written so that the same value can be read again."""

    def __init__(self, kind: type, reason: str = "its type has no codec") -> None:
        self.kind = kind
        super().__init__(f"{kind.__module__}.{kind.__qualname__} cannot be kept on disk: {reason}")


class Unreadable(ValueError):
    """Data is damaged, or no value of this version."""


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes, with the type and shape that a safetensors file states for them."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


class BlockCodec(Protocol):
    """Writes and reads one type that holds a block of numbers."""

    @property
    def name(self) -> str: ...

    def takes(self, value: object) -> bool:
        """Whether the value is of that type."""
        ...

    def write(self, value: Any) -> tuple[Block, Mapping[str, Tree]]:
        """Its block, and what else is needed to make it again. Raises NoCodec."""
        ...

    def allocate(self, dtype: str, shape: tuple[int, ...], nbytes: int) -> tuple[Any, memoryview]:
        """Something to be filled, and its bytes. Raises ValueError when the size does not fit the shape."""
        ...

    def finish(self, filled: Any, details: Mapping[str, Tree]) -> object:
        """The value, of what `allocate` gave once its bytes are there and what `write` added."""
        ...


class BytesCodec:
    """Plain bytes."""

    name = "bytes"

    def takes(self, value: object) -> bool:
        return type(value) is bytes

    def write(self, value: bytes) -> tuple[Block, Mapping[str, Tree]]:
        return Block("U8", (len(value),), memoryview(value)), {}

    def allocate(self, dtype: str, shape: tuple[int, ...], nbytes: int) -> tuple[bytearray, memoryview]:
        if dtype != "U8" or shape != (nbytes,):
            raise ValueError(f"{nbytes} bytes are not {dtype} of shape {shape}")
        filled = bytearray(nbytes)
        return filled, memoryview(filled)

    def finish(self, filled: bytearray, details: Mapping[str, Tree]) -> bytes:
        return bytes(filled)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as a tree that refers to blocks by name. A block's name starts with that of its codec: `tensor.0`."""

    tree: Tree
    blocks: Mapping[str, Block]


class Codec:
    """All codecs of an engine."""

    def __init__(self, blocks: Iterable[BlockCodec] = ()) -> None:
        self.blocks: Mapping[str, BlockCodec] = {codec.name: codec for codec in (BytesCodec(), *blocks)}

    def encode(self, value: object) -> Encoded:
        """The value as data. Raises NoCodec."""
        encoding = _Encoding(self.blocks)
        try:
            return Encoded(encoding.tree(value), encoding.found)
        except RecursionError as error:
            raise NoCodec(type(value), "it is nested too deeply") from error
        except NoCodec:
            raise
        except Exception as error:  # of a type that is not ours to know
            raise NoCodec(type(value), f"{type(error).__name__}: {error}") from error

    def allocate(self, name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> tuple[Any, memoryview]:
        """Something for the bytes of a block to be read into. Raises Unreadable, ValueError."""
        codec = self.blocks.get(name.partition(".")[0])
        if codec is None:
            raise Unreadable(f"there is no codec for the block {name!r}")
        return codec.allocate(dtype, shape, nbytes)

    def decode(self, tree: Tree, filled: Mapping[str, Any]) -> object:
        """The value that was encoded. Raises Unreadable."""
        try:
            return _Decoding(self.blocks, filled).value(tree)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
            raise Unreadable(f"this is no value of this version: {error}") from error


_LARGEST_INT = 1 << 63
"""Beyond this, readers of JSON disagree, and Python refuses thousands of digits."""


@dataclass(slots=True)
class _Encoding:
    codecs: Mapping[str, BlockCodec]
    found: dict[str, Block] = field(default_factory=dict[str, Block])
    written: dict[int, Tree] = field(default_factory=dict[int, Tree])
    """Blocks by the identity of their value: what is the same object twice is written once and read as one."""

    def tree(self, value: object) -> Tree:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -_LARGEST_INT <= cast(int, value) < _LARGEST_INT else {"int": hex(cast(int, value))}
        if kind is float:
            return value if isfinite(cast(float, value)) else {"float": repr(value)}
        if kind is str:
            return _text(cast(str, value))
        if kind is tuple or kind is list:
            return {kind.__name__: [self.tree(item) for item in cast("Iterable[object]", value)]}
        if kind is dict:
            pairs = cast("Mapping[object, object]", value).items()
            return {"dict": [[self.tree(key), self.tree(item)] for key, item in pairs]}
        if isinstance(value, Path):
            return {"path": _text(str(value))}
        for codec in self.codecs.values():
            if codec.takes(value):
                return self._block(codec, value)
        return self._dataclass(value)

    def _block(self, codec: BlockCodec, value: object) -> Tree:
        if id(value) not in self.written:
            block, details = codec.write(value)
            name = f"{codec.name}.{len(self.found)}"
            self.found[name] = block
            self.written[id(value)] = {"block": name, **details}
        return self.written[id(value)]

    def _dataclass(self, value: object) -> Tree:
        kind = type(value)
        if _dataclass_named(kind.__module__, kind.__qualname__) is not kind:
            raise NoCodec(kind)
        content = {each.name: self.tree(getattr(value, each.name)) for each in fields(cast(Any, value))}
        return {"value": [kind.__module__, kind.__qualname__], "fields": content}


@dataclass(slots=True)
class _Decoding:
    codecs: Mapping[str, BlockCodec]
    filled: Mapping[str, Any]
    made: dict[str, object] = field(default_factory=dict[str, object])

    def value(self, tree: Tree) -> object:
        match tree:
            case None | bool() | int() | float() | str():
                return tree
            case {"value": [str(module), str(name)], "fields": content}:
                return self._dataclass(module, name, content)
            case {"block": str(name), **details}:
                if name not in self.made:
                    self.made[name] = self.codecs[name.partition(".")[0]].finish(self.filled[name], details)
                return self.made[name]
            case {"tuple": items}:
                return tuple(self.value(item) for item in items)
            case {"list": items}:
                return [self.value(item) for item in items]
            case {"dict": pairs}:
                return {self.value(key): self.value(item) for key, item in pairs}
            case {"int": str(digits)}:
                return int(digits, 16)
            case {"float": str(name)}:
                return float(name)
            case {"text": str(digits)}:
                return bytes.fromhex(digits).decode("utf-8", "surrogatepass")
            case {"path": name}:
                return Path(cast(str, self.value(name)))
            case _:
                raise Unreadable(f"no value is written as {str(tree)[:80]}")

    def _dataclass(self, module: str, name: str, content: Mapping[str, Tree]) -> object:
        kind = _dataclass_named(module, name)
        if kind is None:
            raise Unreadable(f"{module}.{name} is no frozen dataclass of this process")
        names = [each.name for each in fields(kind)]
        if set(names) != set(content):
            raise Unreadable(f"{module}.{name} had other fields when this was written")
        value = object.__new__(kind)
        for each in names:  # as they were: a constructor might change them again
            object.__setattr__(value, each, self.value(content[each]))
        return value


def _text(value: str) -> Tree:
    """Halves of surrogate pairs, which file names can hold, do not survive JSON as they are."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"text": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _dataclass_named(module: str, name: str) -> Any:
    """The frozen dataclass of that name in a module that is loaded, or None."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not is_dataclass(found):
        return None
    kind = cast(Any, found)
    return kind if kind.__dataclass_params__.frozen else None
