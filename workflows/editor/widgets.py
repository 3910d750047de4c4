"""What a node's `widgets_values` say: an array of values without names, or an object.

The array holds one value for each widget in the order in which the editor made them, and between these, values that are
the editor's own: what becomes of a seed after the run, a list's filter, the button that uploads a file. Which of those
there are depends on the age of the editor and on what it knew of the node, so an array is read in the order that its
values fit best.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any, Literal, cast

from workflows.editor.descriptions import DescribedInput, Description
from workflows.editor.shapes import a_list, an_object

CONTROL_WORDS = ("fixed", "increment", "decrement", "randomize", "increment-wrap")


@dataclass(frozen=True, slots=True)
class Own:
    """A value that is the editor's own, and how it is written."""

    kind: Literal["control", "filter", "upload", "unused"]
    written: object = None


CONTROL = Own("control", "fixed")
FILTER = Own("filter", "")
UPLOAD = Own("upload", "image")
UNUSED = Own("unused")
"""Files from before frontend 1.16 hold a value also for inputs that can only be linked."""

Place = DescribedInput | Own
Controls = Literal["declared", "seen", "none"]
Uploads = Literal["after required", "after input", "at end", "none"]


def named_values(description: Description, given: object) -> dict[str, object]:
    """The value of every widget by its name. What is not given has the value of a widget nobody has touched."""
    found = dict(an_object(given))
    if array := a_list(given):
        pairs = zip(_best_order(description, array), array, strict=False)
        found = {place.name: value for place, value in pairs if isinstance(place, DescribedInput)}
    values: dict[str, object] = {}
    for widget in description.widgets:
        values |= {widget.name: found[widget.name]} if widget.name in found else widget.initial
    return values


def array_of(description: Description, values: Mapping[str, object]) -> list[object]:
    """The array for these values. A value that is not given is the declared default, or null."""
    return [
        values.get(place.name, place.options.get("default")) if isinstance(place, DescribedInput) else place.written
        for place in _order(description, (), "declared", "after required", False)
    ]


def rewritten(description: Description, given: object, values: Mapping[str, object]) -> object:
    """What a node's `widgets_values` say once these values are in it; the rest of it stays as it is."""
    array = a_list(given)
    if not array:
        return {**an_object(given), **values} if given else array_of(description, values)
    order = _best_order(description, array)[: len(array)]
    places = {place.name: at for at, place in enumerate(order) if isinstance(place, DescribedInput)}
    if not values.keys() <= places.keys():
        return array_of(description, {**named_values(description, array), **values})
    changed = list(array)
    for name, value in values.items():
        changed[places[name]] = value
    return changed


def _best_order(description: Description, array: Sequence[object]) -> list[Place]:
    """Of the orders that editors have written, the one that fits; of several, the one that today's write."""
    best: list[Place] = []
    least = (inf, inf, inf)
    for controls, uploads, unused in product(_CONTROLS, _UPLOADS, (False, True)):
        order = _order(description, array, controls, uploads, unused)
        misfits = _misfits(order, array)
        if misfits < least:
            best, least = order, misfits
        if least == (0, 0, 0):
            break
    return best


_CONTROLS: tuple[Controls, ...] = ("declared", "seen", "none")
_UPLOADS: tuple[Uploads, ...] = ("after required", "after input", "at end", "none")


def _order(
    description: Description, array: Sequence[object], controls: Controls, uploads: Uploads, unused: bool
) -> list[Place]:
    """What each place of an array stands for, under some assumptions about the editor that wrote it."""
    order: list[Place] = []
    buttons = 0
    in_required = True
    for each in description.inputs.values():
        if in_required and not each.required:
            in_required = False
            if uploads == "after required":
                order += [UPLOAD] * buttons
                buttons = 0
        if not each.is_widget:
            order += [UNUSED] if unused and each.could_be_widget else []
            continue
        order.append(each)
        order += _controls(each, controls, array[len(order)] if len(order) < len(array) else None)
        if each.uploads and uploads == "after input":
            order.append(UPLOAD)
        elif each.uploads and uploads != "none":
            buttons += 1
    return order + [UPLOAD] * buttons


def _controls(widget: DescribedInput, controls: Controls, following: object) -> Iterator[Own]:
    if controls == "seen":
        controlled = widget.widget_type in ("INT", "COMBO") and following in CONTROL_WORDS
    else:
        controlled = controls == "declared" and widget.control != "none"
    if controlled:
        yield CONTROL
        if widget.widget_type == "COMBO":
            yield FILTER


def _misfits(order: Sequence[Place], array: Sequence[object]) -> tuple[float, float, float]:
    """Values that cannot stand in their places, values that only may, and how far the lengths differ."""
    fits = [_fit(place, value) for place, value in zip(order, array, strict=False)]
    return fits.count("no"), fits.count("maybe"), abs(len(order) - len(array))


def _fit(place: Place, value: object) -> Literal["yes", "maybe", "no"]:
    if value is None:
        return "yes"
    kind = place.kind if isinstance(place, Own) else place.widget_type
    match kind:
        case "control":
            # In old files a truth value: whether the seed changes.
            fits = isinstance(value, bool) or value in CONTROL_WORDS
        case "filter" | "upload" | "STRING":
            fits = isinstance(value, str)
        case "BOOLEAN":
            fits = isinstance(value, bool)
        case "INT":
            fits = not isinstance(value, bool) and (isinstance(value, int) or _whole(value))
        case "FLOAT":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        case "COMBO":
            # A file may have been there when the document was saved.
            choices = cast(DescribedInput, place).choices
            return "yes" if value in choices else "maybe" if _same_type(value, choices) else "no"
        case _:
            fits = True
    return "yes" if fits else "no"


def _whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _same_type(value: object, choices: Sequence[Any]) -> bool:
    return isinstance(value, (list, type(choices[0]) if choices else str))
