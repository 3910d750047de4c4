"""A node is a typed function: its signature is its schema, its docstring its tooltip."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, update_wrapper
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from graph.literals import LiteralType, listed_type, literal_type
from graph.recording import recorder
from graph.values import Service, Ui, Value, service_type, value_type

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_KNOWN = object()
Known = Annotated[T, _KNOWN]
"""A composite's input that must be computed before it is expanded: `model: Known[Model]`."""

_WHOLE = object()
Whole = Annotated[T, _WHOLE]
"""A composite's input that it only passes on, of whatever sort: not computed first, and a list stays one list."""

_MANY = object()
Many = Annotated[list[T], _MANY]
"""A list of values: `-> Many[Image]` gives each to what follows, one call for each; `images: Many[Image]` takes all."""

MISSING: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Named:
    """Inputs that are no identifiers: `**ratios: Annotated[float, Named(("time_embed.", "out."), 1.0)]` has these two.

    All have one type and one default.
    """

    names: tuple[str, ...]
    default: object = MISSING


Loop = Literal["start", "each", "while"]
Stage = Literal["experimental", "deprecated"]


class DeclarationError(TypeError):
    """A function cannot be a node as it is written."""

    def __init__(self, function: Callable[..., object], reason: str) -> None:
        super().__init__(f"{function.__module__}.{function.__qualname__} cannot be a node: {reason}")


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node: filled by a link (`value`), or a literal that may also be linked (`literal`)."""

    name: str
    value: type[Value] | None
    literal: LiteralType | None
    default: object = MISSING
    known: bool = False
    """Whether a composite must have it before it is expanded."""
    many: bool = False
    """Whether it takes a list as a whole, where others take its items one by one."""
    whole: bool = False
    """Whether a composite passes it on as it is, list or not."""

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def wire(self) -> str:
        """The type's name in documents: `MODEL`, `INT`, `COMBO` …"""
        if self.value is not None:
            return self.value.kind
        return cast(LiteralType, self.literal).wire

    def accepts(self, output: "Output") -> bool:
        """Whether a link from this output may end here."""
        if self.value is not None and output.value is self.value:
            return True
        mine, theirs = self.wire, output.wire
        if self.value is not None:  # what `Any` or `Value` stands for is looked at when it comes
            if output.value is None:
                return theirs == "*"
            return output.value is Value or issubclass(output.value, self.value)
        if mine == "*":
            return True
        if output.value is not None:
            return False
        if theirs == "*" or theirs in mine.split(","):
            return True
        return (mine, theirs) in {("FLOAT", "INT"), ("COMBO", "STRING"), ("STRING", "COMBO")}


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a node. `value` is its type, or None when it is a literal (INT, STRING …)."""

    name: str
    value: type[Value] | None
    wire: str
    many: bool = False
    """Whether it is a list, whose items are taken one by one."""


class Node(Generic[P, R]):
    """A function in the catalogue. Calling it calls the function, or records a step inside a workflow builder."""

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        *,
        category: str,
        title: str | None = None,
        composite: bool = False,
        impure: bool = False,
        version: int = 1,
        progress: bool = False,
        lane: str | None = None,
        cutoff: bool = False,
        loop: Loop | None = None,
        stage: Stage | None = None,
    ) -> None:
        update_wrapper(self, function)  # copies __doc__ and __name__
        self.function = function
        self.name = name
        self.category = category
        self.title = title or name
        self.composite = composite
        self.impure = impure
        self.version = version
        self.progress = progress
        self.is_async = inspect.iscoroutinefunction(function)
        self.lane = lane or ("async" if self.is_async else "cpu")
        self.cutoff = cutoff
        self.loop: Loop | None = loop
        self.stage: Stage | None = stage
        self.opaque = composite or cutoff or loop in ("each", "while")
        """Whether what its outputs are is told by looking, not by its own key: see `graph/identities.py`."""
        self.signature = inspect.signature(function)
        self.description = inspect.cleandoc(function.__doc__ or "")
        hints = self._hints(function)
        self.inputs: Mapping[str, Input] = {}
        self.services: Mapping[str, type[Service]] = {}
        self.variadic: str | None = None
        for parameter in self.signature.parameters.values():
            self._add_parameter(parameter, hints)
        # The content of a file whose name arrives by a link is not known before the run: such a step has no key.
        self.file_inputs = frozenset(
            name for name, given in self.inputs.items() if given.literal and given.literal.source
        )
        # What a function could change in place, so that each call gets its own copy.
        self.mutable_inputs = tuple(
            name for name, given in self.inputs.items() if given.literal and (given.many or not given.literal.plain)
        )
        if "return" not in hints:
            raise DeclarationError(function, "it has no return annotation")
        self.result: Any = hints["return"]
        self.fields = _fields(self.result)
        self.sink = isinstance(self.result, type) and issubclass(self.result, Ui)
        """Whether the node acts on the world outside (saves, shows), so that it runs every time it is asked."""
        self.outputs = self._outputs()
        self.gives_lists = any(output.many for output in self.outputs)
        if composite and self.is_async:
            raise DeclarationError(function, "a composite only builds a graph, so it cannot be async")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call(None, *args, **kwargs)

    def titled(self, title: str) -> Callable[P, R]:
        """The node, to be recorded under a title: `encode.titled("Prompt")(text="…", clip=clip)`."""
        return partial(self._call, title)

    def _call(self, title: str | None, /, *args: P.args, **kwargs: P.kwargs) -> R:
        recording = recorder.get()
        if recording is None:
            return self.function(*args, **kwargs)
        arguments = self.signature.bind_partial(*args, **kwargs).arguments
        if self.variadic is not None:
            named = arguments.pop(self.variadic, {})
            arguments |= named
        for name, declared in self.inputs.items():
            if declared.required and name not in arguments:
                raise TypeError(f"{self.name} needs an input {name!r}")
        return cast(R, self.unpack(recording.add(self, arguments, title)))

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def unpack(self, outputs: tuple[object, ...]) -> object:
        """The outputs in the shape of the return annotation."""
        if self.fields:
            return self.result(*outputs)
        return outputs[0] if outputs else None

    def pack(self, result: object) -> tuple[object, ...] | None:
        """What the function returned, as a tuple with one entry per output; None if it is not of that shape."""
        if not self.fields:
            return (result,) if self.outputs else ()
        return tuple(cast("tuple[object, ...]", result)) if isinstance(result, tuple) else None

    def _add_parameter(self, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
        name = parameter.name
        named = _named_inputs(hints.get(name)) if parameter.kind is parameter.VAR_KEYWORD else None
        if named is not None:
            self.variadic = name
            for each in named.names:
                self._add_input(each, hints[name], named.default)
            return
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DeclarationError(self.function, f"parameter {name!r} must be an ordinary or keyword-only parameter")
        if name not in hints:
            raise DeclarationError(self.function, f"parameter {name!r} has no annotation")
        self._add_input(name, hints[name], parameter.default)

    def _add_input(self, name: str, annotation: Any, default: Any) -> None:
        bare, marks = _bare(annotation)
        service = service_type(bare)
        if service is not None:
            cast("dict[str, type[Service]]", self.services)[name] = service
            return
        many = _MANY in marks
        if many:
            (annotation,) = get_args(bare)
            bare, _ = _bare(annotation)
        value = value_type(bare)
        literal = self._literal(f"parameter {name!r}", annotation) if value is None else None
        if literal is not None and many:
            literal = listed_type(literal)
        if literal is not None and default is not MISSING:
            try:
                default = literal.checked_default(default)
            except ValidationError as error:
                reason = "; ".join(detail["msg"] for detail in error.errors())
                raise DeclarationError(
                    self.function, f"the default {default!r} of parameter {name!r} does not fit its type: {reason}"
                ) from error
        cast("dict[str, Input]", self.inputs)[name] = Input(
            name=name,
            value=value,
            literal=literal,
            default=default,
            known=_KNOWN in marks or (value is None and _WHOLE not in marks),
            many=many,
            whole=_WHOLE in marks,
        )

    def _outputs(self) -> tuple[Output, ...]:
        if self.sink:
            return ()
        if self.result is type(None):
            raise DeclarationError(
                self.function, "it returns nothing; a node returns values, or a Ui if it saves or shows something"
            )
        if self.fields:
            hints = self._hints(self.result)
            return tuple(self._output(name, hints[name]) for name in self.fields)
        return (self._output("", self.result),)

    def _output(self, name: str, annotation: Any) -> Output:
        bare, marks = _bare(annotation)
        many = _MANY in marks
        if many:
            (annotation,) = get_args(bare)
            bare, _ = _bare(annotation)
        value = value_type(bare)
        wire = self._literal("what it returns", annotation).wire if value is None else value.kind
        return Output(name or wire, value, wire, many)

    def _literal(self, what: str, annotation: Any) -> LiteralType:
        literal = literal_type(annotation)
        if _holds_values(literal.base):
            raise DeclarationError(
                self.function,
                f"{what} is {_named(literal.base)}, which a link cannot carry; a link carries one value, and "
                "a function that returns several returns a NamedTuple",
            )
        if not literal.plain:
            try:
                literal.require_validator()
            except PydanticUserError as error:
                raise DeclarationError(
                    self.function,
                    f"{what} is {_named(literal.base)}, which is neither a Value nor a Service nor a type of JSON",
                ) from error
        return literal

    def _hints(self, annotated: Callable[..., object]) -> dict[str, Any]:
        try:
            return get_type_hints(annotated, include_extras=True)
        except NameError as error:
            raise DeclarationError(
                self.function,
                f"the annotation {error.name!r} is not known where the node is declared; import it or define it "
                "before the node, at the top of the module if the module postpones its annotations",
            ) from error


def node(
    name: str,
    *,
    category: str = "",
    title: str | None = None,
    impure: bool = False,
    version: int = 1,
    progress: bool = False,
    lane: str | None = None,
    cutoff: bool = False,
    loop: Loop | None = None,
    stage: Stage | None = None,
) -> Callable[[Callable[P, R]], Node[P, R]]:
    """Declare a node: `@node("ImageInvert", category="image")` on a typed function.

    Parameters are told apart by annotation alone: a `Value` is filled by a link, a `Service` is injected, anything
    else is a JSON literal (`Annotated[int, Field(ge=0)]` gives limits, `Widget` and `Source` the rest). The return
    annotation names the outputs: one value, a NamedTuple of several, or a `Ui` for a node that shows something.

    Args:
        impure: the result may differ from call to call, so it has no identity and is never reused.
        version: raise it when the function gives other results although its source looks the same.
        progress: finished uses of this node are what a composite around it reports as its progress.
        lane: the resource it occupies while it runs: `device` (networks), `io` (files), `cpu` (everything else; what
            is async occupies none), or one of your own, which is as wide as the executor is told, or one at a time.
        cutoff: its outputs are cheap to digest, and what follows goes by what they are instead of how they were
            made: a change upstream that leaves them identical stops here (early cut-off).
        loop: `start` of a loop, or the end of one over `each` item or `while` a condition holds; what lies between is
            run once for each turn (`graph/loops.py`).
        stage: what editors say of it to those who choose: it is `experimental`, or `deprecated`.
    """
    return lambda function: Node(
        function,
        name,
        category=category,
        title=title,
        impure=impure,
        version=version,
        progress=progress,
        lane=lane,
        cutoff=cutoff,
        loop=loop,
        stage=stage,
    )


def composite(
    name: str,
    *,
    category: str = "",
    title: str | None = None,
    impure: bool = False,
    version: int = 1,
    stage: Stage | None = None,
) -> Callable[[Callable[P, R]], Node[P, R]]:
    """Declare a node whose function calls nodes. The engine runs what it calls, each call with its own identity.

    Literals and `Known[...]` inputs are at hand when the function runs; other inputs are links, to be passed on.
    """
    return lambda function: Node(
        function, name, category=category, title=title, composite=True, impure=impure, version=version, stage=stage
    )


_MARKS = (_KNOWN, _WHOLE, _MANY)


def _bare(annotation: Any) -> tuple[Any, tuple[object, ...]]:
    """The annotation without `Annotated` and `| None`, and which of `Known`, `Whole` and `Many` it was under."""
    marks: tuple[object, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            marks += tuple(item for item in metadata if any(item is mark for mark in _MARKS))
        elif get_origin(annotation) in (Union, UnionType):
            parts = [part for part in get_args(annotation) if part is not type(None)]
            if len(parts) != 1:
                return annotation, marks
            annotation = parts[0]
        else:
            return annotation, marks


def _named_inputs(annotation: Any) -> Named | None:
    """What stands in the annotation of a function's `**`, if it is a node's."""
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((item for item in metadata if isinstance(item, Named)), None)


def _holds_values(annotation: Any) -> bool:
    """Whether a type is made of values: a list, a tuple or a union of them."""
    return any(value_type(part) is not None or _holds_values(part) for part in get_args(annotation))


def _named(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def _fields(result: Any) -> tuple[str, ...]:
    """The names of several outputs, if the return annotation is a NamedTuple."""
    fields: object = getattr(result, "_fields", ())
    return cast("tuple[str, ...]", fields) if isinstance(fields, tuple) else ()
