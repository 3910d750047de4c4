"""Random documents of beads, and random edits of them."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Pick = Callable[[int], int]
"""A number below this one, by chance."""
Link = list[Any]


@dataclass
class Pools:
    """What may be linked to at some place."""

    beads: list[Link] = field(default_factory=list[Link])
    numbers: list[Link] = field(default_factory=list[Link])

    def copy(self) -> "Pools":
        return Pools(list(self.beads), list(self.numbers))


@dataclass
class Slot:
    """An input that can be edited, and what may stand there."""

    node: str
    input: str
    options: list[Any]


class Documents:
    """Draws a document node by node. Every node may link to those before it, but not into a loop that has ended."""

    def __init__(self, pick: Pick, size: int, kinds: "list[str] | None" = None) -> None:
        self.pick = pick
        self.document: dict[str, Any] = {}
        self.slots: list[Slot] = []
        self.ends: list[str] = []
        self.kinds = kinds or KINDS
        pools = Pools()
        self.add("Bead", pools, number=self.number())
        for _ in range(size):
            self.one(pools, 0)
        self.targets = self.some_targets()

    def some_targets(self) -> list[str]:
        count = 1 + self.pick(3)
        nodes = [node for node in self.document if not self.is_inside(node)]
        sinks = [node for node in self.document if self.document[node]["class_type"].startswith("Show")]
        picked = [nodes[-1 - self.pick(min(len(nodes), 6))] for _ in range(count)]
        return list(dict.fromkeys([*picked, *sinks]))

    def is_inside(self, node: str) -> bool:
        return "." in node

    def number(self) -> int:
        return self.pick(12)

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{len(self.document)}"

    def add(self, class_type: str, pools: Pools, prefix: str = "", /, **inputs: Link | int | None) -> str:
        """A node; its outputs join the pools, unless it is of a loop."""
        name = self.fresh(prefix)
        self.document[name] = {"class_type": class_type, "inputs": {}}
        for key, given in inputs.items():
            if given is None:
                continue
            self.document[name]["inputs"][key] = given
            if isinstance(given, list):
                link: Link = given
                pool = next((pool for pool in (pools.beads, pools.numbers) if link in pool), [link])
                self.slots.append(Slot(name, key, list(pool)))
            elif isinstance(given, bool):
                self.slots.append(Slot(name, key, [False, True]))
            else:
                self.slots.append(Slot(name, key, [0, 1, 2, 3]))
        for at, kind in enumerate(OUTPUTS.get(class_type, "b")):
            (pools.beads if kind == "b" else pools.numbers).append([name, at])
        return name

    def bead(self, pools: Pools) -> Link:
        recent = min(len(pools.beads), 8)
        return pools.beads[-1 - self.pick(recent)]

    def maybe(self, pools: Pools) -> Link | None:
        return self.bead(pools) if self.pick(2) else None

    def small(self, pools: Pools, below: int = 4) -> Any:
        if pools.numbers and not self.pick(4):
            return pools.numbers[-1 - self.pick(min(len(pools.numbers), 4))]
        return self.pick(below)

    def flag(self, pools: Pools) -> Any:
        if pools.numbers and not self.pick(2):
            a = pools.numbers[-1 - self.pick(min(len(pools.numbers), 4))]
            name = self.fresh("c")
            self.document[name] = {"class_type": "Compare", "inputs": {"a": a, "comparison": "<", "b": self.pick(3)}}
            return [name, 0]
        return bool(self.pick(3))

    def one(self, pools: Pools, depth: int, prefix: str = "") -> None:
        kind = self.kinds[self.pick(len(self.kinds))]
        bead, small, maybe = self.bead, self.small, self.maybe
        match kind:
            case "Bead":
                self.add(kind, pools, prefix, number=self.number() if self.pick(3) else small(pools))
            case "Join":
                self.add(kind, pools, prefix, a=bead(pools), b=maybe(pools), plus=small(pools))
            case "Halve" | "Weigh" | "Chip" | "Roll" | "Sieve" | "Descend":
                self.add(kind, pools, prefix, bead=bead(pools))
            case "Polish":
                self.add(kind, pools, prefix, bead=bead(pools), grain=small(pools))
            case "Scatter" | "Fan":
                self.add(kind, pools, prefix, bead=bead(pools), count=small(pools))
            case "Thread":
                self.add(kind, pools, prefix, beads=bead(pools), knot=small(pools))
            case "Assort" | "All":
                self.add(kind, pools, prefix, beads=bead(pools))
            case "Grow" | "Fork":
                self.add(kind, pools, prefix, bead=bead(pools), times=small(pools))
            case "Look":
                self.add(kind, pools, prefix, bead=bead(pools), other=maybe(pools))
            case "Switch":
                self.add(kind, pools, prefix, on=self.flag(pools), if_true=bead(pools), if_false=bead(pools))
            case "Choose":
                self.add(kind, pools, prefix, index=small(pools, 3), input_0=bead(pools), input_1=bead(pools))
            case "Gate":
                self.add(kind, pools, prefix, value=bead(pools), open=self.flag(pools))
            case "MakeList":
                self.add(kind, pools, prefix, item_1=bead(pools), item_2=maybe(pools), item_3=maybe(pools))
            case "ListItem":
                self.add(kind, pools, prefix, items=bead(pools), index=small(pools, 2))
            case "ListSlice":
                self.add(kind, pools, prefix, items=bead(pools), start=small(pools, 2), step=1 + self.pick(2))
            case "RepeatItem":
                self.add(kind, pools, prefix, item=bead(pools), times=small(pools, 3))
            case "ListLength":
                self.add(kind, pools, prefix, items=bead(pools))
            case "NumberRange":
                self.add(kind, pools, prefix, start=0, stop=small(pools))
            case "Show":
                self.add(kind, pools, prefix, what=bead(pools))
            case "ShowTwice":
                self.add(kind, pools, prefix, bead=bead(pools))
            case "ForEach":
                self.for_each(pools, depth, prefix)
            case _:
                self.begin_while(pools, depth, prefix)

    def for_each(self, pools: Pools, depth: int, prefix: str) -> None:
        if depth == 2:
            return
        mark = f"{prefix}l{len(self.document)}."
        inside = pools.copy()
        start = self.add("ForEach", pools, mark, items=self.bead(pools), carried=self.first(pools, depth))
        inside.beads += [[start, 1], [start, 4]]
        inside.numbers += [[start, 2], [start, 3]]
        for _ in range(1 + self.pick(3)):
            self.one(inside, depth + 1, mark)
        carried = self.bead(inside) if self.pick(2) else None
        result = self.bead(inside) if self.pick(4) else None
        end = self.add("ForEachEnd", inside, prefix, loop=None, result=result, carried=carried)
        self.document[end]["inputs"]["loop"] = [start, 0]
        pools.beads += [[end, 0], [end, 1]]
        self.ends.append(end)

    def begin_while(self, pools: Pools, depth: int, prefix: str) -> None:
        if depth == 2:
            return
        mark = f"{prefix}l{len(self.document)}."
        inside = pools.copy()
        start = self.add("While", pools, mark, state=self.first(pools, depth), state_2=self.bead(pools))
        inside.beads += [[start, 2], [start, 3]]
        inside.numbers += [[start, 1]]
        for _ in range(1 + self.pick(3)):
            self.one(inside, depth + 1, mark)
        a = [start, 1] if self.pick(3) else inside.numbers[-1 - self.pick(min(len(inside.numbers), 4))]
        condition = self.fresh(mark)
        self.document[condition] = {"class_type": "Compare", "inputs": {"a": a, "comparison": "<", "b": self.pick(4)}}
        states = {
            "state": self.bead(inside) if self.pick(4) else None,
            "state_2": self.bead(inside) if self.pick(2) else None,
        }
        end = self.add("WhileEnd", inside, prefix, **states)
        self.document[end]["inputs"] |= {"loop": [start, 0], "condition": [condition, 0], "most_turns": 4}
        pools.beads += [[end, 0], [end, 1]]
        pools.numbers.append([end, 3])
        self.ends.append(end)

    def first(self, pools: Pools, depth: int) -> Link:
        """What a loop begins with; one inside another begins with what that one carries, and so is inside of it."""
        return next(link for link in reversed(pools.beads) if "." in link[0]) if depth else self.bead(pools)

    def edit(self) -> None:
        """Let something else stand at an input, or ask for something else."""
        if self.pick(4):
            self._put(self.slots[self.pick(len(self.slots))])
        else:
            self.targets = self.some_targets()

    def edit_literal(self) -> tuple[str, str]:
        """Let another literal stand somewhere. Returns the node and its input."""
        literal = [slot for slot in self.slots if not isinstance(slot.options[0], list)]
        slot = literal[self.pick(len(literal))]
        self._put(slot)
        return slot.node, slot.input

    def _put(self, slot: Slot) -> None:
        self.document = deepcopy(self.document)
        self.document[slot.node]["inputs"][slot.input] = slot.options[self.pick(len(slot.options))]


OUTPUTS = {
    "Halve": "bbn",
    "Fork": "bbn",
    "Weigh": "n",
    "Scatter": "bn",
    "ListLength": "n",
    "NumberRange": "n",
    "Show": "",
    "ShowTwice": "",
    "ForEach": "",
    "ForEachEnd": "",
    "While": "",
    "WhileEnd": "",
}
KINDS = [
    *("Bead", "Join", "Join", "Halve", "Weigh", "Weigh", "Polish", "Chip", "Roll", "Sieve", "Descend"),
    *("Scatter", "Fan", "Thread", "Assort", "All", "Grow", "Fork", "Look", "Switch", "Choose", "Gate"),
    *("MakeList", "ListItem", "ListSlice", "RepeatItem", "ListLength", "NumberRange", "Show", "ShowTwice"),
    *("ForEach", "ForEach", "While"),
]
