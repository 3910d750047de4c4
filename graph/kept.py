"""What the store has of a step: its outputs in an entry of its own, or a record of which other entries have them."""

from collections.abc import Iterable, Mapping
from typing import cast

from graph.identities import Identities, Revealed
from graph.keys import Key, Origin, origins_key
from graph.lists import Items
from graph.resolve import Graph
from graph.store import Outputs, Store
from graph.values import Service

Record = tuple[Revealed, ...]


def record_of(store: Store, key: Key) -> Record | None:
    """What the store remembers of where the outputs of an opaque step, or of one that took lists, come from."""
    return cast("Record | None", store.get(origins_key(key)))


def fetch(store: Store, key: Key, record: Record | None) -> Outputs | None:
    """The outputs of a step, if the store has all of them."""
    if record is None:
        return store.get(key)
    outputs = [_value(store, output, (key, at)) for at, output in enumerate(record)]
    return None if any(value is _MISSING for value in outputs) else tuple(outputs)


_MISSING = object()


def _value(store: Store, output: Revealed, own: Origin) -> object:
    if output.items is not None and output.place is None:
        values = [_value(store, item, own) for item in output.items]
        return _MISSING if any(value is _MISSING for value in values) else Items(tuple(values))
    key, at = output.place or own
    outputs = store.get(key)
    return _MISSING if outputs is None else outputs[at]


def _places(outputs: Iterable[Revealed], own: Key) -> Iterable[Key]:
    for output in outputs:
        if output.items is not None and output.place is None:
            yield from _places(output.items, own)
        else:
            yield output.place[0] if output.place else own


def found(graph: Graph, store: Store, services: Mapping[type[Service], str]) -> frozenset[str]:
    """The steps whose outputs a run would take from the store; nothing is read but records, and nothing is run."""
    ids = Identities(services)
    ids.add(graph.steps)
    kept: set[str] = set()
    for step in graph.steps:
        ids.ask(step.id)
        key = ids.final.get(step.id)
        if key is None or step.node.sink:
            continue
        record = record_of(store, key)
        if record is not None and step.node.opaque:
            ids.reveal(step.id, record)
        if all(place in store for place in (_places(record, key) if record else (key,))):
            kept.add(step.id)
    return frozenset(kept)
