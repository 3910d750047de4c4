"""Steps on their way through a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from graph.awaiting import Awaited
from graph.identities import Result, Revealed
from graph.keys import Key
from graph.lanes import Rank
from graph.resolve import Step
from graph.store import Claim, Outputs
from graph.values import Ui

if TYPE_CHECKING:
    from graph.active_run import ActiveRun
    from graph.turns import Turns


class Phase(IntEnum):
    """How far a step is."""

    NAME = 0
    """Its key is being found out."""
    LOOK_UP = 1
    """It may be in the store."""
    TWIN = 2
    """Another step with the same key is being made."""
    INPUTS = 3
    """What it needs is being made."""
    READY = 4
    """It waits for its lane, or runs."""
    UNFOLDED = 5
    """What it stands for is known, and nobody has asked for its outputs yet."""
    RESULTS = 6
    """The steps its outputs come from are being made."""
    DONE = 7


@dataclass(slots=True)
class Inside:
    """What was put in the place of a step, and where its outputs come from.

    Args:
        results: what its outputs are. Of a loop with a condition this is known when the loop is over.
        acting: the steps that are to be made for what they do to the world.
        ticks: how many steps count as its progress.
        pieces: how many items or turns do.
    """

    results: tuple[Result, ...] = ()
    acting: Sequence[str] = ()
    ticks: int = 0
    pieces: int = 0
    open_ticks: int = 0
    """How many of the steps that count are still to be made."""
    open_pieces: int = 0
    """For how many steps it waited when it began to wait for its results."""
    turns: "Turns | None" = None


@dataclass(slots=True, eq=False)
class Task:
    """A step on its way."""

    step: Step
    rank: Rank
    queue: "ActiveRun"
    lane: str
    phase: Phase
    parent: "Task | None"
    depth: int
    acts: bool
    """Whether it acts on the world, so that it is never taken from the store."""
    wanted: bool = False
    taken: list[str] = field(default_factory=list[str])
    """What is kept for it until it is done."""
    keeps_inputs: bool = False
    """Whether its inputs are among that."""
    needs: tuple[str, ...] = ()
    waiting: int = 0
    """How many of its needs are not there yet."""
    told: bool = False
    """Whether its start has been told."""
    began: float = 0.0
    inside: Inside | None = None
    preview: Any = None
    key: Key | None = None
    """By which other runs may wait for it, once it is ready."""
    claim: Claim | None = None
    awaited: Awaited | None = None
    abandoned: bool = False
    """Whether its run goes on without it, though its node has not returned."""
    made: "Outcome | None" = None
    """What came of it where another run made it."""
    debt: float = 0.0
    """Seconds it would take to make it again in another process, with all it needs that is not kept either."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of calling a node.

    Args:
        contents: what its outputs are, if what follows goes by their content.
        reused: it was made elsewhere.
    """

    outputs: Outputs = ()
    ui: Ui | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    contents: tuple[Revealed, ...] | None = None
    reused: bool = False
