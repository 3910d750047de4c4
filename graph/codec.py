"""Values as data: a tree of JSON and blocks of bytes. What has no faithful form is refused, never guessed.

Literals, tuples, lists, dicts, paths and frozen dataclasses are written field by field, so a new type of value needs no
code here. What holds a block of numbers (a tensor) is written by a `BlockCodec`, which the engine is given. Reading
imports nothing and runs no code of the data: a dataclass is found by name among the modules that are loaded already,
and its fields are set as they were.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

Tree = Any
"""What JSON can say."""
ALIGNMENT = 64
"""Where blocks begin in a file, and in memory if their codec asks for it: at multiples of this many bytes."""


class NoCodec(TypeError):
    """A value cannot be written so that the same value can be read again."""

    def __init__(self, kind: type, reason: str = "its type has no codec") -> None:
        self.kind = kind
        super().__init__(f"{kind.__module__}.{kind.__qualname__} cannot be kept on disk: {reason}")


class Unreadable(ValueError):
    """Data is damaged, or no value of this version."""


class Block(NamedTuple):
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

    def read(self, block: Block, details: Mapping[str, Tree]) -> object:
        """The value, of its block and of what `write` added. It may keep the block's memory, which nobody else uses.

        Raises ValueError when the size does not fit the shape.
        """
        ...


class BytesCodec:
    """Plain bytes."""

    name = "bytes"

    def takes(self, value: object) -> bool:
        return type(value) is bytes

    def write(self, value: bytes) -> tuple[Block, Mapping[str, Tree]]:
        return Block("U8", (len(value),), memoryview(value)), {}

    def read(self, block: Block, details: Mapping[str, Tree]) -> bytes:
        return block.data.tobytes()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as a tree that refers to blocks by name. A block's name starts with that of its codec: `tensor.0`."""

    tree: Tree
    blocks: Mapping[str, Block]


class Codec:
    """All codecs of an engine."""

    def __init__(self, blocks: Iterable[BlockCodec] = (), room: Callable[[int], memoryview] | None = None) -> None:
        """
        Args:
            room: gives memory for so many bytes, aligned as the codecs of blocks need it.
        """
        self.blocks: Mapping[str, BlockCodec] = {codec.name: codec for codec in (BytesCodec(), *blocks)}
        self.room: Callable[[int], memoryview] = room or _room

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

    def decode(self, tree: Tree, blocks: Mapping[str, Block]) -> object:
        """The value that was encoded; it may keep the memory of the blocks. Raises Unreadable."""
        try:
            return _Decoding(self.blocks, blocks).value(tree)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
            raise Unreadable(f"this is no value of this version: {error}") from error


def _room(nbytes: int) -> memoryview:
    return memoryview(bytearray(nbytes))


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
        names = _field_names(kind)
        if names is None or _named(kind.__module__, kind.__qualname__) is not kind:
            raise NoCodec(kind)
        content = {name: self.tree(getattr(value, name)) for name in names}
        return {"value": [kind.__module__, kind.__qualname__], "fields": content}


class _Decoding:
    __slots__ = ("_blocks", "_codecs", "_made")

    def __init__(self, codecs: Mapping[str, BlockCodec], blocks: Mapping[str, Block]) -> None:
        self._codecs = codecs
        self._blocks = blocks
        self._made: dict[str, object] = {}

    def value(self, given: object) -> object:
        if type(given) in _PLAIN:
            return given
        tree: Tree = given
        match next(iter(tree), None) if type(given) is dict else None:  # one word says what the rest is
            case "value":
                module, name = tree["value"]
                return self._dataclass(module, name, tree["fields"])
            case "block":
                return self._block(tree)
            case "tuple":
                return tuple([self.value(item) for item in tree["tuple"]])
            case "list":
                return [self.value(item) for item in tree["list"]]
            case "dict":
                return {self.value(key): self.value(item) for key, item in tree["dict"]}
            case "int":
                return int(tree["int"], 16)
            case "float":
                return float(tree["float"])
            case "text":
                return bytes.fromhex(tree["text"]).decode("utf-8", "surrogatepass")
            case "path":
                return Path(cast(str, self.value(tree["path"])))
            case _:
                raise Unreadable(f"no value is written as {str(tree)[:80]}")

    def _block(self, tree: Mapping[str, Tree]) -> object:
        name = tree["block"]
        if name not in self._made:
            codec = self._codecs.get(name.partition(".")[0])
            if codec is None:
                raise Unreadable(f"there is no codec for the block {name!r}")
            self._made[name] = codec.read(self._blocks[name], tree)
        return self._made[name]

    def _dataclass(self, module: str, name: str, content: Mapping[str, Tree]) -> object:
        kind: Any = _named(module, name)
        names = _field_names(kind) if isinstance(kind, type) else None
        if names is None:
            raise Unreadable(f"{module}.{name} is no frozen dataclass of this process")
        if content.keys() != names.keys():
            raise Unreadable(f"{module}.{name} had other fields when this was written")
        value = object.__new__(cast(Any, kind))
        for each in names:  # as they were: a constructor might change them again
            part = content[each]
            object.__setattr__(value, each, part if type(part) in _PLAIN else self.value(part))
        return value


_PLAIN = frozenset({bool, int, float, str, type(None)})


def _text(value: str) -> Tree:
    """Halves of surrogate pairs, which file names can hold, do not survive JSON as they are."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"text": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _named(module: str, name: str) -> Any:
    """What has that name in a module that is loaded, or None."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


@lru_cache(maxsize=1024)
def _field_names(kind: type) -> Mapping[str, None] | None:
    """The names of the fields of a frozen dataclass, in order; None for anything else."""
    if not is_dataclass(kind) or not cast(Any, kind).__dataclass_params__.frozen:
        return None
    return dict.fromkeys(each.name for each in fields(kind))
