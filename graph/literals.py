"""What a literal input may be: its JSON type, limits, choices and widget, read from the annotation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, cast, get_args, get_origin

import annotated_types
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from graph.folders import Folders

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Widget:
    """How an editor shows an input: `Annotated[str, Widget(multiline=True)]`. None means: not stated."""

    step: float | None = None
    round: float | None = None
    multiline: bool | None = None
    dynamic_prompts: bool | None = None
    control_after_generate: bool | None = None
    image_upload: bool | None = None
    image_folder: str | None = None
    video_upload: bool | None = None
    display: str | None = None
    placeholder: str | None = None
    advanced: bool | None = None

    def options(self) -> dict[str, object]:
        """The stated options under their `object_info` names."""
        stated = {name: getattr(self, name) for name in self.__slots__}
        stated["dynamicPrompts"] = stated.pop("dynamic_prompts")
        return {name: value for name, value in stated.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Between(annotated_types.GroupedMetadata):
    """A number's limits, what it means, and a widget's step: `Annotated[float, Between(0, 1, "How much.", step=0.1)]`.

    Both limits are allowed. The same as a `Field` and a `Widget`.
    """

    least: float
    most: float
    description: str = ""
    step: float | None = None
    round: float | None = None

    def __iter__(self) -> Iterator[object]:
        yield Field(ge=self.least, le=self.most, description=self.description or None)
        if (self.step, self.round) != (None, None):
            yield Widget(step=self.step, round=self.round)


class Source(Protocol):
    """Where the choices of a file input come from. Used as `Annotated[str, source]`."""

    def names(self, folders: Folders) -> Sequence[str]:
        """The names on offer now."""
        ...

    def locate(self, folders: Folders, name: str) -> Path:
        """The file or folder meant by `name`; raises FileNotFoundError or ValueError with a full sentence."""
        ...


class Mentions(Protocol):
    """Finds the files that a text mentions, so that their content counts. Used as `Annotated[str, mentions]`."""

    def mentioned(self, folders: Folders, text: str) -> Sequence[Path]:
        """Those that this text mentions; what is not there is left out."""
        ...

    def all(self, folders: Folders) -> Sequence[Path]:
        """Those that any text may mention: for one that is not known yet."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The range of a number; `above` and `below` exclude the bound."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def admit(self, value: object) -> bool:
        """Whether a value lies within; text and truth values always do when no limits are stated."""
        number = cast(float, value)
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        lower = (
            f"at least {self.least}"
            if self.least is not None
            else f"above {self.above}"
            if self.above is not None
            else ""
        )
        upper = (
            f"at most {self.most}" if self.most is not None else f"below {self.below}" if self.below is not None else ""
        )
        return " and ".join(part for part in (lower, upper) if part)


UNLIMITED = Limits()


@dataclass(frozen=True)
class LiteralType:
    """A literal input's type, taken apart once: the bare type, its limits, choices, widget and file source."""

    annotation: Any
    base: Any
    wire: str
    widget: Widget = field(default_factory=Widget)
    limits: Limits = UNLIMITED
    choices: tuple[object, ...] = ()
    source: Source | None = None
    mentions: Mentions | None = None
    tooltip: str = ""
    simple: bool = False
    """Whether its limits and choices are all there is to check."""

    @property
    def plain(self) -> bool:
        """Whether its values are numbers, text or true/false, which nobody can change in place."""
        return "*" not in self.wire

    def require_validator(self) -> None:
        """Raise PydanticUserError if no literal can be of this type."""
        _ = self._validator

    def checked_default(self, default: object) -> object:
        """A default as `validate` would give it, so that leaving it out and spelling it out are the same.

        Raises pydantic.ValidationError if it does not fit.
        """
        return default if self.takes_as_it_is(default) else self.validate(default)

    def takes_as_it_is(self, value: object) -> bool:
        """Whether `validate` would give back the value itself, as far as that is easily seen."""
        if not self.simple:
            return False
        if self.choices:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        return (
            type(value) is self.base
            and (self.limits is UNLIMITED or self.limits.admit(value))
            and (type(value) is not float or isfinite(value))
        )

    def validate(self, value: object) -> object:
        """The value as the node will see it. Raises pydantic.ValidationError."""
        return self._validator.validate_python(value)

    def choices_now(self, folders: Folders) -> tuple[object, ...]:
        return tuple(self.source.names(folders)) if self.source else self.choices

    def json_schema(self) -> dict[str, Any]:
        return self._adapter.json_schema()

    # Adapters cost a millisecond each, so they are made when first used, not when a node is declared.
    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return _adapter(self.annotation)

    @cached_property
    def _validator(self) -> Any:
        return self._adapter.validator


def literal_type(annotation: Any) -> LiteralType:
    """Take an annotation apart. Anything pydantic can validate is a literal type."""
    base, metadata = _bare(annotation)
    choices = _choices(base)
    source = next((item for item in metadata if hasattr(item, "locate")), None)
    limits = _limits(metadata)
    return LiteralType(
        annotation=annotation,
        base=base,
        wire="COMBO" if choices or source else _wire(base),
        widget=_merge_widgets(item for item in metadata if isinstance(item, Widget)),
        limits=limits,
        choices=choices,
        source=source,
        mentions=next((item for item in metadata if hasattr(item, "mentioned")), None),
        tooltip=next((item.description for item in metadata if isinstance(item, FieldInfo) and item.description), ""),
        simple=source is None
        and (get_origin(base) is Literal if choices else base in _WIRES)
        and all(_is_simple(item) for item in metadata),
    )


def _is_simple(item: object) -> bool:
    """Whether an annotation is a limit, or says nothing about which values there may be."""
    if isinstance(item, FieldInfo):
        return all(isinstance(constraint, _LIMITS) for constraint in item.metadata)
    return isinstance(item, Widget | _LIMITS) or hasattr(item, "mentioned")


_LIMITS = annotated_types.Ge | annotated_types.Gt | annotated_types.Le | annotated_types.Lt


def listed_type(item: LiteralType) -> LiteralType:
    """The type of a list of such literals; one alone counts as a list of one."""
    return replace(
        item, simple=False, annotation=Annotated[list[item.annotation], BeforeValidator(_as_list)], base=list
    )


def _as_list(given: object) -> object:
    return cast(object, given) if isinstance(given, list) else [given]


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type without `| None`, and everything that annotates it."""
    metadata: tuple[Any, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *inner = get_args(annotation)
            metadata = (*(part for item in inner for part in _parts(item)), *metadata)
        elif get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation):
            # Union[...] because `|` cannot join types that are known only now.
            annotation = Union[tuple(part for part in get_args(annotation) if part is not type(None))]  # noqa: UP007  # as said above
        else:
            return annotation, metadata


def _parts(item: Any) -> tuple[Any, ...]:
    return tuple(item) if isinstance(item, Between) else (item,)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # the type brings its own configuration


def _merge_widgets(widgets: Any) -> Widget:
    stated: dict[str, Any] = {}
    for widget in widgets:
        stated |= {name: value for name in Widget.__slots__ if (value := getattr(widget, name)) is not None}
    return Widget(**stated)


def _choices(base: Any) -> tuple[object, ...]:
    if get_origin(base) is Literal:
        return get_args(base)
    if isinstance(base, type) and issubclass(base, Enum):
        return tuple(cast("object", member.value) for member in base)
    return ()


_WIRES: dict[Any, str] = {int: "INT", float: "FLOAT", str: "STRING", bool: "BOOLEAN"}


def _wire(base: Any) -> str:
    if get_origin(base) in (Union, UnionType):
        wires = {_wire(part) for part in get_args(base) if part is not type(None)}
        return wires.pop() if len(wires) == 1 else ",".join(sorted(wires))
    return _WIRES.get(base, "*")


def _limits(metadata: tuple[Any, ...]) -> Limits:
    found: dict[str, float] = {}
    for item in metadata:
        for constraint in item.metadata if isinstance(item, FieldInfo) else (item,):
            match constraint:
                case annotated_types.Ge():
                    found["least"] = cast(float, constraint.ge)
                case annotated_types.Gt():
                    found["above"] = cast(float, constraint.gt)
                case annotated_types.Le():
                    found["most"] = cast(float, constraint.le)
                case annotated_types.Lt():
                    found["below"] = cast(float, constraint.lt)
                case _:
                    pass
    return Limits(**found) if found else UNLIMITED
