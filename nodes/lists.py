"""Lists: what takes the items of one by one runs once for each of them."""

from typing import Annotated, Any

from pydantic import Field

from graph.literals import Widget
from graph.node import Many, Whole, composite, node

Index = Annotated[int, Field(ge=-1_000_000, le=1_000_000, description="Counted from 0, or back from the end with -1.")]


@composite("MakeList", category="lists")
def make_list(
    item_1: Whole[Any] = None,
    item_2: Whole[Any] = None,
    item_3: Whole[Any] = None,
    item_4: Whole[Any] = None,
    item_5: Whole[Any] = None,
    item_6: Whole[Any] = None,
    item_7: Whole[Any] = None,
    item_8: Whole[Any] = None,
) -> Many[Any]:
    """What is connected, in order, as one list; lists are put end to end."""
    given = (item_1, item_2, item_3, item_4, item_5, item_6, item_7, item_8)
    return [item for item in given if item is not None]


@composite("ListItem", category="lists")
def list_item(items: Whole[Many[Any]], index: Index = 0) -> Any:
    """One item of a list."""
    if not -len(items) <= index < len(items):
        raise ValueError(f"there is no item {index} in a list of {len(items)}")
    return items[index]


@composite("ListSlice", category="lists")
def list_slice(items: Whole[Many[Any]], start: Index = 0, stop: Index = 1_000_000, step: Index = 1) -> Many[Any]:
    """Some of the items: from `start` to before `stop`, every `step`-th; a step of -1 goes backwards from the end."""
    if step == 0:
        raise ValueError("a step of 0 leads nowhere; 1 takes every item, -1 every item backwards")
    if step < 0:
        return items[stop - 1 if stop < len(items) else None : start - 1 if start > 0 else None : step]
    return items[start:stop:step]


@composite("RepeatItem", category="lists")
def repeat_item(item: Whole[Any], times: Annotated[int, Field(ge=0, le=10_000)] = 2) -> Many[Any]:
    """The same item several times."""
    return [item] * times


@node("ListLength", category="lists", cutoff=True)
def list_length(items: Many[Any]) -> int:
    """How many items a list has."""
    return len(items)


@node("NumberRange", category="lists", cutoff=True)
def number_range(
    start: int = 0,
    stop: Annotated[int, Field(description="Not in the list any more.")] = 10,
    step: Annotated[int, Field(description="From one number to the next; below 0 it counts down.")] = 1,
) -> Many[int]:
    """Whole numbers at equal distances."""
    if step == 0:
        raise ValueError("a step of 0 leads nowhere")
    numbers = range(start, stop, step)
    if len(numbers) > 100_000:
        raise ValueError(f"these are {len(numbers):,} numbers; a list has 100,000 at most")
    return list(numbers)


@node("TextLines", category="lists", cutoff=True)
def text_lines(
    text: Annotated[str, Widget(multiline=True)] = "",
    keep_empty: Annotated[bool, Field(description="Whether empty lines are items too.")] = False,
) -> Many[str]:
    """The lines of a text, each an item."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line or keep_empty]
