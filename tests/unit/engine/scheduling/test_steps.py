"""What one step computes: chunks, budgets, order, images."""

from __future__ import annotations

import pytest

from foveal.core.errors import IntegrityError
from foveal.core.priority import Priority
from foveal.engine.scheduling.plan import ScheduledRow, StepPlan
from unit.engine.scheduling.builders import config, image, request
from unit.engine.scheduling.engine_loop import EngineLoop


def rows(plan: StepPlan) -> list[tuple[str, int, int]]:
    return [(row.request_id, row.start, row.end) for row in plan.rows]


def test_prefill_is_chunked_when_the_prompt_exceeds_the_token_budget() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=5))
    loop.add(request("a", 12))
    assert loop.step().rows == (ScheduledRow("a", 0, 5, 0),)
    assert loop.step().rows == (ScheduledRow("a", 5, 5, 0),)
    assert loop.step().rows == (ScheduledRow("a", 10, 2, 1),)
    assert loop.step().rows == (ScheduledRow("a", 12, 1, 1),)


def test_prefill_and_decode_share_one_step_and_one_budget() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=6))
    loop.add(request("a", 4), request("b", 9))
    assert rows(loop.step()) == [("a", 0, 4), ("b", 0, 2)]
    assert rows(loop.step()) == [("a", 4, 5), ("b", 2, 7)]
    assert rows(loop.step()) == [("a", 5, 6), ("b", 7, 9)]


def test_a_long_prompt_of_a_high_class_does_not_stall_the_decoding_of_others() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=6))
    loop.add(request("a", 4, priority=Priority.P2))
    loop.step()
    loop.add(request("b", [9] * 20, priority=Priority.P0))
    assert rows(loop.step()) == [("a", 4, 5), ("b", 0, 5)]
    assert rows(loop.step()) == [("a", 5, 6), ("b", 5, 10)]


def test_a_waiting_request_of_a_better_class_goes_before_a_running_prompt() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=6))
    loop.add(request("a", 20, priority=Priority.P2))
    loop.step()
    loop.add(request("b", 4, priority=Priority.P0), request("c", 4, priority=Priority.P2))
    assert rows(loop.step()) == [("b", 0, 4), ("a", 6, 8)]


def test_no_more_sequences_run_than_allowed() -> None:
    loop = EngineLoop(config(max_num_seqs=2))
    loop.add(*(request(name, 3) for name in "abc"))
    assert rows(loop.step()) == [("a", 0, 3), ("b", 0, 3)]
    assert (loop.scheduler.num_running, loop.scheduler.num_waiting) == (2, 1)


def test_the_sequence_limit_can_be_lowered_and_raised_while_running() -> None:
    loop = EngineLoop(config(max_num_seqs=3))
    loop.scheduler.max_num_seqs = 1
    loop.add(*(request(name, 3) for name in "abc"))
    assert len(loop.step().rows) == 1
    loop.scheduler.max_num_seqs = 99
    assert loop.scheduler.max_num_seqs == 3
    assert len(loop.step().rows) == 3


def test_a_shared_prefix_is_not_computed_again() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", 10))
    loop.run()
    second = request("b", 10)
    loop.add(second)
    assert rows(loop.step()) == [("b", 8, 10)]
    assert second.num_cached_tokens == 8
    loop.run()
    counters = loop.scheduler.stats().counters
    assert (counters.prefix_cache_queries, counters.prefix_cache_hits) == (20, 8)


def test_a_prefix_is_shared_with_a_request_that_still_runs() -> None:
    loop = EngineLoop(config())
    first, second = request("a", 10), request("b", 10)
    loop.add(first)
    loop.step()
    loop.add(second)
    loop.step()
    assert second.block_table[:2] == first.block_table[:2]
    assert second.block_table[2] != first.block_table[2]


def test_clearing_the_caches_recomputes_prefixes() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", 10))
    loop.run()
    loop.scheduler.clear_caches()
    loop.add(request("b", 10))
    assert rows(loop.step()) == [("b", 0, 10)]


def test_the_same_prompt_with_another_image_is_computed_from_the_image_on() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", [1, 2, 3, 4, image("cat"), 5]))
    loop.run()
    loop.add(request("b", [1, 2, 3, 4, image("dog"), 5]))
    assert rows(loop.step()) == [("b", 4, 9)]


def test_an_image_that_a_prefix_hit_covers_is_not_encoded() -> None:
    loop = EngineLoop(config(feature_cache_bytes=0))
    loop.add(request("a", [image("cat"), 1, 2, 3, 4, 5]))
    assert len(loop.step().encode) == 1
    loop.run()
    loop.add(request("b", [image("cat"), 1, 2, 3, 4, 5]))
    assert all(not plan.encode for plan in loop.run())


def test_an_image_cut_by_chunks_and_by_a_prefix_hit_keeps_its_features() -> None:
    """Chunks of 3 through an image of 10; the simulated runner checks features and contexts."""
    loop = EngineLoop(config(max_num_batched_tokens=3, feature_cache_bytes=0))
    loop.add(request("a", [1, 2, image("cat", 10), 3, 4]))
    plans = loop.run()
    assert [len(plan.encode) for plan in plans[:5]] == [1, 0, 0, 0, 0]
    loop.add(request("b", [1, 2, image("cat", 10), 9, 9]))
    assert rows(loop.step()) == [("b", 12, 14)]
    loop.add(request("c", [1, 2, image("cat", 10)]))
    plans = loop.run()
    assert sum(len(plan.encode) for plan in plans) == 1  # its hit ends at 8, in the middle of the image


def test_the_feature_of_a_half_computed_image_survives_pressure_on_the_cache() -> None:
    """Its pin lasts until committed tokens have passed the image, not only while it is scheduled."""
    loop = EngineLoop(config(max_num_batched_tokens=8, feature_cache_bytes=100))
    loop.add(request("a", [image("cat", 20), 1]), request("b", [1, image("dog", 4), 2]))
    plans = loop.run()
    assert [item.content_hash for plan in plans for item in plan.encode] == [b"cat", b"dog"]


def test_while_an_image_waits_for_room_no_other_overtakes_it_but_text_does() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=12, feature_cache_bytes=100))
    loop.add(request("a", [image("cat", 20), 1]))
    loop.step()
    loop.add(request("b", [image("dog"), 2]), request("c", [9, 9, image("cat", 20), 2]), request("d", 2))
    # "c" shows the cached image, but would keep it pinned while "b" waits for its bytes.
    assert rows(loop.step()) == [("a", 12, 21), ("d", 0, 2)]
    assert [item.request_id for item in loop.step().encode] == ["b"]


def test_a_stream_of_requests_for_a_cached_image_does_not_starve_another_image() -> None:
    """The cache holds one image, and somebody is always in the middle of it."""
    loop = EngineLoop(config(max_num_batched_tokens=6, feature_cache_bytes=100, enable_prefix_caching=False))
    loop.add(request("hot0", [image("cat", 20), 1], max_tokens=1))
    loop.step()
    loop.add(request("cold", [image("dog", 4), 1], max_tokens=1, arrival_s=0.0))
    for number in range(1, 20):
        loop.add(request(f"hot{number}", [image("cat", 20), 1], max_tokens=1, arrival_s=0.0))
        loop.step()
    assert "cold" in [item.request_id for item in loop.ended]


def test_images_beyond_the_encoder_budget_wait_for_the_next_step() -> None:
    loop = EngineLoop(config(encoder_budget_tokens=32))
    loop.add(*(request(name, [image(name), 1]) for name in "abc"))
    assert [item.request_id for item in loop.step().encode] == ["a", "b"]
    assert [item.request_id for item in loop.step().encode] == ["c"]


def test_the_batch_is_filled_up_with_images_of_the_same_size() -> None:
    loop = EngineLoop(config(encoder_budget_tokens=32))
    small, large = 16, 20
    loop.add(
        request("a", [image("a", encode_tokens=small), 1]),
        request("b", [image("b", encode_tokens=large), 1]),
        request("c", [image("c", encode_tokens=small), 1]),
    )
    assert [item.request_id for item in loop.step().encode] == ["a", "c"]
    assert [item.request_id for item in loop.step().encode] == ["b"]


def test_an_atomic_span_is_never_cut() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=6, atomic_image_spans=True))
    loop.add(request("a", [1, 2, 3, image("cat", 5), 4, 5, 6, 7]))
    assert [rows(loop.step()) for _ in range(3)] == [[("a", 0, 3)], [("a", 3, 9)], [("a", 9, 12)]]


def test_an_atomic_span_longer_than_the_budget_exceeds_it_instead_of_waiting_for_ever() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=4, atomic_image_spans=True))
    loop.add(request("a", [1, image("cat", 9), 2]), request("b", [image("dog", 9), 2]))
    plans = loop.run()
    assert max(row.num_tokens for plan in plans for row in plan.rows) == 9
    assert len(loop.ended) == 2


def test_an_atomic_span_is_not_starved_by_decoding_requests() -> None:
    """The budget would hold the span alone, but decoding takes a part of it in every step."""
    loop = EngineLoop(config(max_num_batched_tokens=10, atomic_image_spans=True))
    loop.add(*(request(name, 2, max_tokens=50) for name in "abc"))
    loop.step()
    loop.add(request("d", [image("cat", 9), 1], max_tokens=1))
    loop.step()
    loop.step()
    assert [item.request_id for item in loop.ended] == ["d"]


def test_times_are_those_passed_in() -> None:
    loop = EngineLoop(config(max_num_seqs=1))
    first, second = request("a", 3, max_tokens=2), request("b", 3)
    loop.add(first, second)
    for now_s in (1.0, 2.0, 3.0):
        loop.now_s = now_s
        loop.step()
    assert (first.scheduled_s, first.first_token_s) == (1.0, 1.0)
    assert (second.scheduled_s, second.first_token_s) == (3.0, 3.0)


def test_a_plan_is_committed_exactly_once_and_before_the_next() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", 3))
    plan = loop.scheduler.schedule(0.0)
    with pytest.raises(IntegrityError, match="before the plan in flight"):
        loop.scheduler.schedule(0.0)
    with pytest.raises(IntegrityError, match="not the plan in flight"):
        loop.scheduler.commit(StepPlan(plan.rows), {"a": [1]}, 0.0)
    loop.scheduler.commit(plan, {"a": [1]}, 0.0)
    with pytest.raises(IntegrityError, match="not the plan in flight"):
        loop.scheduler.commit(plan, {"a": [1]}, 0.0)


def test_a_row_without_its_samples_is_a_bug_of_the_runner() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", 3, n=2))
    with pytest.raises(IntegrityError, match="got 1 samples"):
        loop.scheduler.commit(loop.scheduler.schedule(0.0), {"a": [1]}, 0.0)


def test_an_idle_scheduler_plans_nothing() -> None:
    loop = EngineLoop(config())
    assert loop.step() == StepPlan()
    assert not loop.scheduler.has_unfinished


def test_stats_count_what_happened() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", [image(), 1], max_tokens=3), request("b", [image(), 1], max_tokens=3))
    loop.step()
    reading = loop.scheduler.stats()
    assert (reading.num_running, reading.num_waiting, reading.kv_blocks_total) == (2, 0, 64)
    assert reading.kv_blocks_owned == 4
    loop.run()
    reading = loop.scheduler.stats()
    assert (reading.counters.prompt_tokens, reading.counters.generation_tokens) == (10, 6)
    assert (reading.counters.encoded_images, reading.feature_cache_hits, reading.feature_cache_queries) == (1, 1, 2)
    assert (reading.counters.steps, reading.counters.finished, reading.kv_blocks_owned) == (3, 2, 0)


def test_a_last_token_that_is_an_image_of_its_own_gets_its_feature() -> None:
    """It looks like a decoding row: one token is missing."""
    loop = EngineLoop(config(encoder_budget_tokens=16))
    loop.add(request("a", [image("cat"), 1, image("dot", 1)]))
    assert rows(loop.step()) == [("a", 0, 5)]
    plan = loop.step()
    assert rows(plan) == [("a", 5, 6)]
    assert [item.content_hash for item in plan.encode] == [b"dot"]
