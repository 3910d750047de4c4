"""Which way a workflow goes: switches, gates, loops, and the numbers that decide."""

import operator
from collections.abc import Callable, Mapping
from math import inf, isfinite
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from graph.lists import blocked
from graph.node import Many, Whole, composite, node
from graph.values import Value


class EachLoop(Value, kind="FOR_EACH"):
    """Ties the end of a loop over items to its start."""


class WhileLoop(Value, kind="WHILE"):
    """Ties the end of a loop with a condition to its start."""


@composite("Switch", category="flow")
def switch(
    on: Annotated[
        bool, Field(description="Which of the two is passed on; what only the other needs is not run.")
    ] = True,
    if_true: Whole[Any] = None,
    if_false: Whole[Any] = None,
) -> Any:
    """One of two inputs, of any type. The branch that is not taken does not run."""
    return _connected("if_true" if on else "if_false", if_true if on else if_false)


@composite("Choose", category="flow")
def choose(
    index: Annotated[int, Field(ge=0, le=7, description="Which input is passed on, counted from 0.")] = 0,
    input_0: Whole[Any] = None,
    input_1: Whole[Any] = None,
    input_2: Whole[Any] = None,
    input_3: Whole[Any] = None,
    input_4: Whole[Any] = None,
    input_5: Whole[Any] = None,
    input_6: Whole[Any] = None,
    input_7: Whole[Any] = None,
) -> Any:
    """One of up to eight inputs, of any type. The branches that are not taken do not run."""
    inputs = (input_0, input_1, input_2, input_3, input_4, input_5, input_6, input_7)
    return _connected(f"input_{index}", inputs[index])


@composite("Gate", category="flow")
def gate(
    value: Whole[Any] = None,
    open: Annotated[bool, Field(description="Closed, nothing that needs the value is run, and nothing fails.")] = True,
) -> Any:
    """Pass a value on, or keep everything that needs it from running."""
    return _connected("value", value) if open else blocked()


class Turn(NamedTuple):
    """One turn of a loop over items."""

    loop: EachLoop
    item: Any
    item_index: int
    item_count: int
    carried: Any


@node("ForEach", category="flow/loops", loop="start")
def for_each(items: Many[Any], carried: Whole[Any] = None) -> Turn:
    """The start of a loop: what lies between here and ForEachEnd is run once for each item of a list.

    What is `carried` goes from turn to turn: the end of one turn gives it to the next. Asked for outside of its loop,
    it gives the first turn.
    """
    if not items:
        raise ValueError("there are no items, so there is no first turn to be looked at")
    return Turn(EachLoop(), items[0], 0, len(items), carried)


class Turns(NamedTuple):
    results: Many[Any]
    carried: Any


@node("ForEachEnd", category="flow/loops", loop="each")
def for_each_end(loop: EachLoop, result: Any = None, carried: Any = None) -> Turns:
    """The end of a loop: the result of every turn as a list, and what was carried out of the last one."""
    raise NotImplementedError("the executor makes the turns of a loop; the function of its end is never called")


class Round(NamedTuple):
    """One turn of a loop with a condition."""

    loop: WhileLoop
    turn: int
    state: Any
    state_2: Any
    state_3: Any


@node("While", category="flow/loops", loop="start")
def begin_while(state: Whole[Any] = None, state_2: Whole[Any] = None, state_3: Whole[Any] = None) -> Round:
    """The start of a loop: what lies between here and WhileEnd is run as long as its condition holds.

    The state goes from turn to turn. Asked for outside of its loop, it gives the first turn.
    """
    return Round(WhileLoop(), 0, state, state_2, state_3)


class Rounds(NamedTuple):
    state: Any
    state_2: Any
    state_3: Any
    turns: int


@node("WhileEnd", category="flow/loops", loop="while")
def end_while(
    loop: WhileLoop,
    condition: Annotated[
        bool, Field(description="Looked at before every turn, on the state the turn would begin with.")
    ],
    state: Any = None,
    state_2: Any = None,
    state_3: Any = None,
    most_turns: Annotated[int, Field(ge=1, le=1_000_000, description="A loop that goes on beyond this fails.")] = 1000,
) -> Rounds:
    """The end of a loop: the state with which its condition no longer holds, and how many turns that took."""
    raise NotImplementedError("the executor makes the turns of a loop; the function of its end is never called")


Comparison = Literal["<", "<=", "==", "!=", ">=", ">"]
COMPARISONS: Mapping[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


@node("Compare", category="flow/numbers", cutoff=True)
def compare(a: float = 0.0, comparison: Comparison = "<", b: float = 0.0) -> bool:
    """Whether two numbers stand in a relation."""
    return COMPARISONS[comparison](a, b)


@node("Not", category="flow/numbers", cutoff=True)
def negate(value: bool = False) -> bool:
    """True becomes false, and false true."""
    return not value


Operation = Literal["+", "-", "*", "/", "%", "min", "max", "power"]


class Calculated(NamedTuple):
    FLOAT: float
    INT: int


@node("Calculate", category="flow/numbers", cutoff=True)
def calculate(a: float = 0.0, operation: Operation = "+", b: float = 0.0) -> Calculated:
    """Two numbers made one; the whole number is the nearest, of two equally near the even one."""
    match operation:
        case "+":
            result = a + b
        case "-":
            result = a - b
        case "*":
            result = a * b
        case "/":
            result = a / _divisor(b)
        case "%":
            result = a % _divisor(b)
        case "min":
            result = min(a, b)
        case "max":
            result = max(a, b)
        case "power":
            result = _power(a, b)
    if not isfinite(result):
        raise ValueError(f"{a:g} {operation} {b:g} is too large for a number")
    return Calculated(result, round(result))


def _divisor(b: float) -> float:
    if b == 0:
        raise ValueError("b is 0, and nothing can be divided by that")
    return b


def _power(a: float, b: float) -> float:
    if a == 0 and b < 0:
        raise ValueError("0 has no power below 0")
    try:
        result: Any = a**b
    except OverflowError:
        return inf
    if isinstance(result, complex):
        raise ValueError("a negative number has no real power of this kind")
    return float(result)


def _connected(name: str, given: Any) -> Any:
    if given is None:
        raise ValueError(f"the input {name!r} is to be passed on, but nothing is connected to it")
    return given
