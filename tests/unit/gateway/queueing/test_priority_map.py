from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.queueing.priority_map import PriorityMap

KEYS = st.integers(0, 8)
ACTIONS = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.integers(-5, 5))), max_size=200)


@given(ACTIONS)
def test_first_is_the_smallest_rank_and_the_earliest_set_among_equals(actions: list[tuple[int, int | None]]) -> None:
    queue: PriorityMap[int] = PriorityMap()
    oracle: dict[int, tuple[int, int]] = {}
    for number, (key, rank) in enumerate(actions):
        if rank is None:
            queue.discard(key)
            oracle.pop(key, None)
        else:
            queue.set(key, rank)
            oracle[key] = (rank, number)
        expected = min(oracle, key=lambda item: oracle[item], default=None)
        assert queue.first() == (None if expected is None else (oracle[expected][0], expected))
        assert len(queue) == len(oracle)


def test_moving_one_entry_for_ever_does_not_grow_the_heap() -> None:
    queue: PriorityMap[str] = PriorityMap()
    queue.set("bottom", -1.0)
    for rank in range(10_000):
        queue.set("moved", float(rank))
    assert len(queue._heap) < 100
