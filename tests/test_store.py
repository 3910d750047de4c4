from collections import OrderedDict
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.store import MemoryStore
from graph.values import size_of
from tests.toys import Cloth, Yarn

OPERATIONS = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef"), st.integers(0, 60)), max_size=60)


def block(nbytes: int) -> tuple[object, ...]:
    """Outputs of a size: 64 bytes for the tuple, the rest for the array."""
    return (np.zeros(nbytes - 64, np.uint8),)


@given(OPERATIONS)
def test_the_store_is_the_most_recently_used_that_fit(operations: list[tuple[bool, str, int]]):
    store = MemoryStore(1000)
    model: OrderedDict[str, int] = OrderedDict()
    for put, key, size in operations:
        if put:
            nbytes = 64 + size * 20
            store.put(key.encode(), block(nbytes))
            model.pop(key, None)
            if nbytes <= 1000:
                model[key] = nbytes
            while sum(model.values()) > 1000:
                model.popitem(last=False)
        else:
            assert (store.get(key.encode()) is not None) == (key in model)
            if key in model:
                model.move_to_end(key)
        assert store.nbytes == sum(model.values()) <= 1000
        assert len(store) == len(model)


def test_the_least_recently_used_goes_first():
    store = MemoryStore(300)
    for key in (b"a", b"b", b"c"):
        store.put(key, block(100))
    store.get(b"a")
    store.put(b"d", block(100))
    assert [key in store for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert store.statistics.evictions == 1


def test_what_is_larger_than_the_store_is_not_kept_and_drives_nothing_out():
    store = MemoryStore(300)
    store.put(b"a", block(100))
    store.put(b"b", block(301))
    assert store.get(b"b") is None
    assert b"a" in store


def test_hits_and_misses_are_counted():
    store = MemoryStore(300)
    store.get(b"a")
    store.put(b"a", (1,))
    assert store.get(b"a") == (1,)
    assert (store.statistics.hits, store.statistics.misses) == (1, 1)


def test_many_threads_may_use_a_store():
    store = MemoryStore(5000)

    def work(seed: int) -> None:
        for at in range(500):
            key = bytes([(seed * at) % 97])
            store.put(key, block(64 + at % 300))
            store.get(bytes([at % 97]))

    threads = [Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [store.get(bytes([at])) for at in range(97)]
    assert store.nbytes == sum(size_of(outputs) for outputs in kept if outputs is not None) <= 5000


@pytest.mark.parametrize(
    ("value", "least"),
    [(np.zeros(1000), 8000), ("a" * 100, 100), ([Yarn("a" * 50)] * 3, 150), ({"a": b"1" * 99}, 99), (7, 1)],
)
def test_sizes_count_what_a_value_holds(value: object, least: int):
    assert least <= size_of(value) <= least + 600


def test_a_value_counts_its_fields():
    assert Cloth((Yarn("a" * 1000), Yarn())).nbytes > 1000
