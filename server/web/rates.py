"""How often somebody may do something: so many at once, and then so many per second."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Rate:
    """A bucket of tokens for everybody, refilled as time goes by (as in traffic shaping: a token bucket).

    Args:
        burst: how many at once.
        per_second: how many in the long run.
        clock: seconds that never go back.
    """

    burst: float
    per_second: float
    clock: Callable[[], float] = time.monotonic
    # Who has taken some: how many tokens were left, and when. Whoever is not here has a full bucket.
    _left: OrderedDict[Hashable, tuple[float, float]] = field(
        default_factory=OrderedDict[Hashable, tuple[float, float]]
    )

    def wait(self, who: Hashable) -> float:
        """Seconds until there is one for `who`; 0: there is one now."""
        return max(0.0, (1.0 - self._tokens(who)) / self.per_second)

    def take(self, who: Hashable) -> float:
        """Take one if there is one. Seconds to wait otherwise, and 0 if one was taken."""
        wait = self.wait(who)
        if wait == 0:
            self.charge(who)
        return wait

    def charge(self, who: Hashable) -> None:
        """Take one also if there is none: what is owed has to be refilled first."""
        self._left[who] = (self._tokens(who) - 1.0, self.clock())
        self._left.move_to_end(who)
        # The one whose last time is longest ago has most likely a full bucket again.
        if len(self._left) > MOST_REMEMBERED:
            self._left.popitem(last=False)

    def _tokens(self, who: Hashable) -> float:
        left, then = self._left.get(who, (self.burst, 0.0))
        return min(self.burst, left + (self.clock() - then) * self.per_second)
