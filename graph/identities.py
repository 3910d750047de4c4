"""What every output of a run is: found out as the run learns more, asked for before anything is computed.

The key of a step (`graph/keys.py`) is made of what comes to it. What comes from an ordinary step is named by its key.
Some steps are *opaque*: what comes out of a composite is what comes out of a step inside it, and what comes out of
a node with early cut-off is named by its content. Of these, the outputs are named only once they have been looked into
(*revealed*): by what the store remembers, by expanding the composite, or by running the node. A step behind an opaque
one has a key only then. So it goes by what it is given, not by how that came to be: a branch of a switch that is not
taken, a loop that ends where it did, or a mask that turns out the same, change nothing that follows.

Every step also has a *static* key, made of static keys alone and so known at once. Under it the store remembers what a
composite turned out to be.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graph.identity import digest, encode
from graph.keys import Key, Origin, key_of
from graph.resolve import Ref, Step
from graph.values import Service


@dataclass(frozen=True, slots=True)
class Constant:
    """A result that a composite knew without running anything."""

    value: object


@dataclass(frozen=True, slots=True)
class Gathered:
    """A result that is a list, each item from a place of its own."""

    sources: "tuple[Ref | Constant, ...]"


Result = Ref | Constant | Gathered
"""Where an output of a composite comes from."""


@dataclass(frozen=True, slots=True)
class Revealed:
    """What an output of an opaque step turned out to be.

    `identity` names it for keys; None where it has no name. `place` is the entry of the store (key and output) that
    holds it; None if that is the opaque step's own entry. `items` are the same for each item of a list.
    """

    identity: Origin | None
    place: Origin | None = None
    items: "tuple[Revealed, ...] | None" = None

    @property
    def is_placed(self) -> bool:
        """Whether the store has it in an entry, or each of its items."""
        if self.place is None and self.items is not None:
            return all(item.is_placed for item in self.items)
        return self.place is not None


class Identities:
    """Keys of the steps of one run. `final` has those that are known by now; None: a step without one."""

    def __init__(self, services: Mapping[type[Service], str]) -> None:
        self.services = services
        self.steps: dict[str, Step] = {}
        self.static: dict[str, Key | None] = {}
        self.final: dict[str, Key | None] = {}
        self.nameless: dict[str, Exception] = {}
        """Steps of which no key can be made, and why."""
        self.revealed: dict[Ref, Revealed] = {}
        self._origins: dict[Ref, tuple[Key | None, int]] = {}
        self._closed: set[str] = set()
        """Opaque steps that have not been revealed."""
        self._all_named = True
        """Whether every step is named by its static key so far: none is opaque, and nothing else has a name."""
        self._waiting: dict[str, int] = {}
        self._waiters: dict[str, list[str]] = {}
        self._results: dict[str, tuple[Result, ...]] = {}
        self._fresh: list[str] = []

    def add(self, steps: Iterable[Step]) -> None:
        """Take in steps, each after its sources."""
        known, static, final = self.steps, self.static, self.final
        for step in steps:
            known[step.id] = step
            try:
                key = key_of(step, static, None, self.services)
            except Exception as error:
                self.nameless[step.id] = error
                static[step.id] = final[step.id] = None
                continue
            static[step.id] = key
            if step.node.opaque:
                self._closed.add(step.id)
                self._all_named = False
            if self._all_named:
                final[step.id] = key
            elif step.node.composite or step.node.loop in ("each", "while"):
                # It does not need what it may not use: its own name is the static one.
                final[step.id] = key
            elif all(source in final and source not in self._closed for source, _ in step.links.values()):
                final[step.id] = self._final(step) if self._origins else key

    def add_value(self, name: str, known: Revealed) -> None:
        """Take in a value that is no step's output under an id of its own."""
        # A key that tells apart what differs in the output alone: nothing else says which one it is.
        key = known.identity and digest(b"value", known.identity[0], encode(known.identity[1]))
        self.static[name] = self.final[name] = key
        self.revealed[name, 0] = known
        self._origins[name, 0] = known.identity or (None, 0)
        self._all_named = False

    def is_open(self, step_id: str) -> bool:
        """Whether the outputs of a step have names by now."""
        return step_id in self.final and step_id not in self._closed

    def of(self, ref: Ref) -> Origin | None:
        """What names an output; None if nothing does. The step must be open."""
        key, output = self._origins.get(ref) or (self.final[ref[0]], ref[1])
        return None if key is None else (key, output)

    def place(self, ref: Ref) -> Revealed:
        """The name of an output and where the store has it. The step must be open."""
        found = self.revealed.get(ref)
        if found is None:
            key = self.final[ref[0]]
            return Revealed(self.of(ref), None if key is None else (key, ref[1]))
        if found.place is None and found.items is None and ref[0] in self.steps:
            key = self.final[ref[0]]
            return Revealed(found.identity, None if key is None else (key, ref[1]))
        return found

    def ask(self, step_id: str) -> list[str]:
        """Begin to find a step's key. Returns the opaque steps that have to be revealed for it."""
        closed: list[str] = []
        stack = [step_id]
        while stack:
            at = stack.pop()
            if at in self.final or at in self._waiting:
                continue
            self._expect(at, {source for source, _ in self.steps[at].links.values()}, closed, stack)
        return closed

    def ask_results(self, step_id: str, results: tuple[Result, ...]) -> list[str]:
        """Begin to find out what the outputs of an expanded step are. Returns what has to be revealed for it."""
        self._results[step_id] = results
        closed: list[str] = []
        stack: list[str] = []
        self._expect(step_id, {source[0] for source in sources_of(results)}, closed, stack)
        while stack:
            at = stack.pop()
            if at not in self.final and at not in self._waiting:
                self._expect(at, {source for source, _ in self.steps[at].links.values()}, closed, stack)
        return closed

    def reveal(self, step_id: str, outputs: Iterable[Revealed]) -> None:
        """Say what the outputs of an opaque step are, or, if that is known, where their items are."""
        for at, output in enumerate(outputs):
            self._note(step_id, at, output)
        if step_id in self._closed:
            self._closed.discard(step_id)
            self._settle([step_id])

    def forget(self, step_id: str) -> None:
        """Let go of a step or a value that nobody will ask for."""
        step = self.steps.pop(step_id, None)
        for at in range(1 if step is None else len(step.node.outputs)):
            self.revealed.pop((step_id, at), None)
            self._origins.pop((step_id, at), None)
        for known in (self.static, self.final, self.nameless, self._results):
            known.pop(step_id, None)
        self._closed.discard(step_id)

    def take_fresh(self) -> list[str]:
        """The steps whose keys were found out since the last time."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _note(self, step_id: str, at: int, output: Revealed) -> None:
        self.revealed[step_id, at] = output
        self._origins.setdefault((step_id, at), output.identity or (None, 0))

    def _expect(self, at: str, sources: Iterable[str], closed: list[str], stack: list[str]) -> None:
        """Have a step wait for the names of its sources, or name it if they are all there."""
        missing = [source for source in sources if not self.is_open(source)]
        if not missing:
            self._settle(self._name(at))
            return
        self._waiting[at] = len(missing)
        for source in missing:
            self._waiters.setdefault(source, []).append(at)
            if source not in self.final:
                stack.append(source)
            if source in self._closed:
                closed.append(source)

    def _settle(self, opened: list[str]) -> None:
        """Name what waited for these, and what waited for that."""
        settled = list(opened)
        for at in settled:  # which grows
            if not self.is_open(at):
                continue
            for waiter in self._waiters.pop(at, ()):
                self._waiting[waiter] -= 1
                if not self._waiting[waiter]:
                    del self._waiting[waiter]
                    settled += self._name(waiter)
        self._fresh += settled

    def _name(self, at: str) -> list[str]:
        results = self._results.pop(at, None)
        if results is None:
            self.final[at] = self._final(self.steps[at])
            return [at]
        for index, result in enumerate(results):
            self._note(at, index, self.name_of(at, index, result))
        self._closed.discard(at)
        return [at]

    def _final(self, step: Step) -> Key | None:
        try:
            return key_of(step, self.final, self._origins, self.services)
        except Exception as error:
            self.nameless[step.id] = error
            return None

    def name_of(self, step_id: str, at: int, result: Result) -> Revealed:
        """What an output of an expanded step is. What it comes from must be open."""
        if isinstance(result, tuple):
            return self.place(result)
        if isinstance(result, Constant):
            return Revealed(self.constant_name(step_id, result.value, at))
        parts = [
            self.of(source) if isinstance(source, tuple) else self.constant_name(step_id, source.value, at, place)
            for place, source in enumerate(result.sources)
        ]
        named = [part for part in parts if part is not None]
        whole = None if len(named) < len(parts) else (digest(b"list", encode(named)), 0)
        return Revealed(whole)

    def constant_name(self, step_id: str, value: object, *place: int) -> Origin | None:
        """What names a result that was known at once: its content, or else whose result it is."""
        if type(value) in PLAIN:
            return literal_name(value)
        key = self.static[step_id]
        return None if key is None else (digest(b"constant", encode((key, *place))), 0)


def literal_name(value: object) -> Origin:
    """What names a literal that stands in place of an output."""
    return digest(b"literal", encode(value)), 0


def item_name(whole: Origin, at: int) -> Origin:
    """What names an item of a list, unless something better is known."""
    return digest(b"item", encode((*whole, at))), 0


PLAIN = frozenset((bool, int, float, str, type(None)))
"""Types of values that can stand in place of an output."""


def sources_of(results: Iterable[Result]) -> list[Ref]:
    """The outputs that results come from."""
    found: list[Ref] = []
    for result in results:
        if isinstance(result, tuple):
            found.append(result)
        elif isinstance(result, Gathered):
            found += [source for source in result.sources if isinstance(source, tuple)]
    return found
