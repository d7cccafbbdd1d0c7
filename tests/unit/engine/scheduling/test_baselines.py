"""Modes that exist only to be compared with: static batches and no KV cache."""

from __future__ import annotations

from itertools import count

from foveal.core.priority import Priority
from unit.engine.scheduling.builders import config, image, request
from unit.engine.scheduling.engine_loop import EngineLoop


def test_static_batching_admits_nobody_until_the_whole_batch_has_ended() -> None:
    loop = EngineLoop(config(batching="static", max_num_seqs=2))
    loop.add(request("a", 4, max_tokens=2), request("b", 4, max_tokens=5), request("c", 4, max_tokens=1))
    batches = [{row.request_id for row in plan.rows} for plan in loop.run()]
    assert batches == [{"a", "b"}, {"a", "b"}, {"b"}, {"b"}, {"b"}, {"c"}]


def test_a_static_batch_is_as_large_as_sequences_allow_whatever_the_token_budget() -> None:
    loop = EngineLoop(config(batching="static", max_num_seqs=3, max_num_batched_tokens=4))
    loop.add(*(request(name, 4) for name in "abcd"))
    loop.step()
    assert (loop.scheduler.num_running, loop.scheduler.num_waiting) == (3, 1)
    loop.run()


def test_without_kv_cache_every_step_computes_the_whole_sequence() -> None:
    loop = EngineLoop(config(kv_cache=False))
    loop.add(request("a", 4, max_tokens=3))
    assert [(row.start, row.end) for plan in loop.run() for row in plan.rows] == [(0, 4), (0, 5), (0, 6)]


def test_without_kv_cache_a_long_sequence_is_still_chunked_and_choices_do_not_share() -> None:
    tokens = count(100)
    loop = EngineLoop(config(kv_cache=False, max_num_batched_tokens=5), sample=lambda _: next(tokens))
    loop.add(request("a", [1, image("cat", 5), 2], n=2, max_tokens=3))
    plans = loop.run()
    assert all(not plan.copies for plan in plans)
    assert all(len(item.output_token_ids) == 3 for item in loop.ended)
    assert loop.scheduler.stats().counters.prefix_cache_queries == 0


def test_a_step_in_which_everybody_gave_way_is_planned_again() -> None:
    """The first request waits for the feature that the second pins, and the second gives way for want of a block."""
    loop = EngineLoop(config(kv_cache=False, num_blocks=5, max_num_batched_tokens=6, feature_cache_bytes=100))
    loop.add(request("low", [1, image("dog", 9)], priority=Priority.P2, max_tokens=5))
    for _ in range(7):
        loop.step()
    loop.add(request("high", [1, 2, 3, image("cat"), 4], priority=Priority.P0))
    loop.step()
    plan = loop.step()
    assert plan.preempted == ("low",)
    assert [row.request_id for row in plan.rows] == ["high"]
    loop.run()
