"""Calling a node's function: what comes in is checked and what comes out is checked."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

from pydantic import ValidationError

from graph.errors import WrongInput, WrongResult
from graph.lists import Blocked, Items
from graph.node import Input, Node
from graph.resolve import Step, literal_problem
from graph.store import Outputs
from graph.values import Ui, Value


def arguments(step: Step, values: Mapping[str, Outputs]) -> dict[str, Any]:
    """The inputs of a step: its literals, and what came by its links. Raises WrongInput.

    A function gets copies of what it could change in place, so that it changes them for nobody else.
    """
    inputs, found = step.node.inputs, dict(step.literals)
    for name, (source, output) in step.links.items():
        found[name] = fitting(inputs[name], values[source][output])
    for name in step.node.mutable_inputs:
        if name in found:
            found[name] = _copied(found[name])
    return found


def fitting(declared: Input, value: object) -> object:
    """What came by a link as the node takes it. Raises WrongInput."""
    literal = declared.literal
    if declared.many:
        value = list(value.values) if isinstance(value, Items) else [value]
        if literal is None:
            return [_of_type(declared, item) for item in value]
    if literal is None:
        return _of_type(declared, value)
    try:
        return literal.validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise WrongInput(declared.name, literal_problem(literal, declared.name, value, details).message) from error


def _of_type(declared: Input, value: object) -> object:
    if not isinstance(value, cast("type[Value]", declared.value)):
        kind = value.kind if isinstance(value, Value) else type(value).__name__
        raise WrongInput(declared.name, f"expected {declared.wire}, but what came by its link is {kind}")
    return value


def _copied(value: object) -> object:
    match value:
        case Value():  # nobody changes one, and a copy of its tensors would cost
            return value
        case list():
            return [_copied(item) for item in cast("list[object]", value)]
        case dict():
            return {key: _copied(item) for key, item in cast("dict[object, object]", value).items()}
        case _:
            return deepcopy(value)


def outputs_of(node: Node[Any, Any], returned: object) -> Outputs:
    """What a node returned as a tuple of outputs. Raises WrongResult if it is not what the node declares."""
    if isinstance(returned, Blocked):
        return (returned,) * len(node.outputs)
    if node.sink:
        if not isinstance(returned, Ui):
            raise WrongResult(f"a {cast(type, node.result).__name__}", returned)
        return ()
    outputs = node.pack(returned)
    if outputs is None or len(outputs) != len(node.outputs):
        raise WrongResult(f"{len(node.outputs)} outputs", returned)
    if node.gives_lists:
        outputs = tuple(
            Items(tuple(cast("list[object]", value))) if output.many and isinstance(value, list | tuple) else value
            for output, value in zip(node.outputs, outputs, strict=True)
        )
    return checked(node, outputs)


def checked(node: Node[Any, Any], outputs: Outputs, *, lists: bool = False) -> Outputs:
    """The outputs, if each is of the type that the node declares. Raises WrongResult.

    Args:
        lists: an output may also be a list, as that of a composite is which passes one on.
    """
    for output, value in zip(node.outputs, outputs, strict=True):
        kind = output.value or _PLAIN.get(output.wire, object)
        if isinstance(value, Items) and (lists or output.many):
            fits = all(item is not None and isinstance(item, kind | Blocked) for item in value.values)
        else:
            fits = value is not None and isinstance(value, kind) and not output.many or isinstance(value, Blocked)
        fits = fits or (value is None and node.loop == "start")  # what is not carried
        if not fits:
            wire = f"a list of {output.wire}" if output.many else output.wire
            raise WrongResult(f"{wire} as output {output.name!r}", value)
    return outputs


_PLAIN: Mapping[str, Any] = {"INT": int, "FLOAT": int | float, "STRING": str, "BOOLEAN": bool}
