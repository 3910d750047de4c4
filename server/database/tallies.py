"""How many jobs each owner has in each state, kept up with every change: counting a million jobs takes too long."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.engine import Connection

from server.database.jobs import State
from server.database.tables import tally

Change = Counter[tuple[str, State]]
"""By owner and state: how many jobs more, or fewer."""

CHANGE = text(
    "INSERT INTO tally (owner, state, jobs) VALUES (:owner, :state, :jobs) "
    "ON CONFLICT (owner, state) DO UPDATE SET jobs = tally.jobs + excluded.jobs"
)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs there are."""

    queued: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def unfinished(self) -> int:
        return self.queued + self.running


def moved(owner: str, before: State, after: State) -> Change:
    """One job changes its state."""
    return Change({(owner, before): -1, (owner, after): 1}) if before != after else Change()


def enter(connection: Connection, change: Mapping[tuple[str, State], int]) -> None:
    """Note a change, in the transaction that makes it."""
    # Always in the same order, and after the jobs themselves: so two transactions never wait for each other.
    rows = [{"owner": owner, "state": state, "jobs": jobs} for (owner, state), jobs in sorted(change.items()) if jobs]
    if rows:
        connection.execute(CHANGE, rows)


def counts(connection: Connection, owner: str | None) -> Counts:
    """The jobs of one owner, or all."""
    query = select(tally.c.state, func.sum(tally.c.jobs)).group_by(tally.c.state)
    if owner is not None:
        query = query.where(tally.c.owner == owner)
    return Counts(**{state: int(jobs) for state, jobs in connection.execute(query)})
