"""What nodes exchange: values travel on links, services are injected, a ui is shown to people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, cast


class Value:
    """What travels on a link. Subclasses are frozen dataclasses: `class Image(Value, kind="IMAGE")`.

    `kind` is the type's name in workflow documents and in `object_info`; subclasses of a value inherit it
    unless they give their own.
    """

    kind: ClassVar[str] = "*"

    def __init_subclass__(cls, kind: str | None = None) -> None:
        super().__init_subclass__()
        if kind is not None:
            cls.kind = kind

    @property
    def nbytes(self) -> int:
        """Bytes this value keeps alive, counted over its fields."""
        return size_of(tuple(getattr(self, field.name) for field in fields(self))) if is_dataclass(self) else 64


@dataclass(frozen=True, slots=True)
class Shortage:
    """Memory that was not there: how much was needed (None: not known), what was resident, what could be freed."""

    needed: int | None
    resident: str
    freed: int = 0

    def __str__(self) -> str:
        needed = "more was needed than there is" if self.needed is None else f"{_mib(self.needed)} more were needed"
        freed = f"{_mib(self.freed)} had been freed before it was tried again" if self.freed else "nothing was idle"
        return f"{needed}; resident: {self.resident}; {freed}"


class Service:
    """What the engine hands to a node beside its inputs. It is not part of a key, unless results depend on it."""

    identity: str = ""
    """What tells two services apart that lead to different results; it then enters the keys of their nodes."""

    def relieve(self, error: BaseException) -> Shortage | None:
        """If a node failed for want of memory: free what is idle, and say what was missing. Otherwise None."""
        return None


class Ui:
    """What an output node has to show. A node that returns one is an output of the workflow.

    Subclasses are frozen dataclasses and say in `to_json` what clients receive, each entry a list
    (`{"images": [{"filename": …, "subfolder": …, "type": …}]}`).
    """

    def to_json(self) -> dict[str, list[Any]]:
        return {}


def value_type(annotation: object) -> type[Value] | None:
    """The annotation, if it is a type of value."""
    if not isinstance(annotation, type):
        return None
    return annotation if issubclass(annotation, Value) else None


def service_type(annotation: object) -> type[Service] | None:
    """The annotation, if it is a type of service."""
    if not isinstance(annotation, type):
        return None
    return annotation if issubclass(annotation, Service) else None


INJECTED: Any = None
"""The default of a service parameter: `def decode(…, models: ModelPool = INJECTED)`."""


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):,.0f} MiB"


def size_of(value: object) -> int:
    """Bytes a value keeps alive; exact for whatever has `nbytes` (tensors, arrays, values)."""
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    match value:
        case str() | bytes():
            return 64 + len(value)
        case Mapping():
            mapping = cast("Mapping[object, object]", value)
            return 64 + sum(size_of(key) + size_of(item) for key, item in mapping.items())
        case tuple() | list() | set() | frozenset():
            return 64 + sum(size_of(item) for item in cast("Iterable[object]", value))
        case _:
            return 32
