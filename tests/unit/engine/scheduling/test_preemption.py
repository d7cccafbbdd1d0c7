"""Who gives way when blocks or sequences run out, and that nobody waits for ever."""

from __future__ import annotations

from foveal.core.priority import Priority
from foveal.engine.scheduling.request import RequestStatus
from unit.engine.scheduling.builders import config, image, request
from unit.engine.scheduling.engine_loop import EngineLoop

P0, P1, P2 = Priority.P0, Priority.P1, Priority.P2


def test_when_blocks_run_out_the_lowest_class_gives_way_and_keeps_its_output() -> None:
    loop = EngineLoop(config(num_blocks=4))
    low, high = request("low", 7, priority=P2, max_tokens=8), request("high", 7, priority=P0, max_tokens=8)
    loop.add(low, high)
    loop.step()
    loop.step()
    plan = loop.step()
    assert plan.preempted == ("low",)
    assert low.status is RequestStatus.PREEMPTED
    assert (low.block_table, len(low.output_token_ids)) == ([], 2)
    loop.run()
    assert [item.request_id for item in loop.ended] == ["high", "low"]
    assert len(low.output_token_ids) == 8


def test_a_request_gives_way_itself_rather_than_displace_a_better_one() -> None:
    loop = EngineLoop(config(num_blocks=5))
    low, high = request("low", 8, priority=P2, max_tokens=8), request("high", 7, priority=P0, max_tokens=8)
    loop.add(low, high)
    plans = [loop.step(), loop.step()]
    assert all("high" not in plan.preempted for plan in plans + loop.run())
    assert low.num_preemptions >= 1
    assert high.num_preemptions == 0


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    loop = EngineLoop(config())
    item = request("a", 10, max_tokens=6)
    loop.add(item)
    loop.step()
    loop.scheduler.preempt("a")
    (row,) = loop.step().rows
    assert (row.start, row.end) == (8, 11)
    assert item.num_cached_tokens == 0  # what the user's prompt found at first admission


def test_only_running_requests_can_be_preempted() -> None:
    loop = EngineLoop(config())
    loop.add(request("a"))
    assert not loop.scheduler.preempt("a")
    assert not loop.scheduler.preempt("unknown")


def test_a_preempted_request_returns_before_later_ones_of_its_class() -> None:
    loop = EngineLoop(config(max_num_seqs=1))
    loop.add(request("a", 4), request("b", 4, arrival_s=0.1))
    loop.step()
    loop.scheduler.preempt("a")
    assert [row.request_id for row in loop.step().rows] == ["a"]


def test_a_preempted_request_comes_back_only_when_the_others_can_grow() -> None:
    """It would fit exactly, and be displaced again as soon as the running one needs a block."""
    loop = EngineLoop(config(num_blocks=5, enable_prefix_caching=False))
    loop.add(request("a", 7, max_tokens=6), request("b", [9] * 8, max_tokens=2))
    loop.step()
    loop.scheduler.preempt("b")
    assert [row.request_id for row in loop.step().rows] == ["a"]
    loop.run()
    assert loop.scheduler.stats().counters.num_preemptions == 1


def test_an_urgent_request_displaces_a_running_one_of_a_lower_class() -> None:
    loop = EngineLoop(config(max_num_seqs=2))
    loop.add(request("a", 4, priority=P2, max_tokens=50), request("b", 4, priority=P1, max_tokens=50))
    loop.step()
    loop.add(request("c", 4, priority=P0))
    assert loop.step().preempted == ()  # it can still wait
    loop.now_s = 0.09
    plan = loop.step()
    assert plan.preempted == ("a",)
    assert "c" in [row.request_id for row in plan.rows]


def test_an_urgent_request_displaces_for_blocks_as_well() -> None:
    loop = EngineLoop(config(num_blocks=8))
    loop.add(request("a", 28, priority=P2))
    loop.step()
    loop.add(request("b", [9] * 20, priority=P0))
    loop.now_s = 0.09
    plan = loop.step()
    assert plan.preempted == ("a",)
    assert [row.request_id for row in plan.rows] == ["b"]


def test_a_large_request_is_not_overtaken_for_ever_by_small_ones() -> None:
    loop = EngineLoop(config(num_blocks=8))
    loop.add(request("small", 4, max_tokens=8))
    loop.step()
    loop.add(request("large", [9] * 28, max_tokens=4))
    for number in range(20):
        loop.add(request(f"s{number}", [number] * 4, max_tokens=8))
        loop.step()
    loop.run()
    assert [item.request_id for item in loop.ended][:2] == ["small", "large"]


def test_the_watermark_keeps_blocks_free_for_running_requests_to_grow() -> None:
    loop = EngineLoop(config(num_blocks=10, watermark=0.2))
    loop.add(request("a", 20), request("b", [9] * 16), request("c", [8] * 3))
    loop.step()
    assert loop.scheduler.num_running == 1
    loop.scheduler.abort("b")
    loop.step()
    assert loop.scheduler.num_running == 2


def test_a_stream_of_the_highest_class_does_not_starve_the_lowest() -> None:
    loop = EngineLoop(config(max_num_seqs=1, ageing_s=10.0))
    loop.add(request("low", 4, priority=P2, max_tokens=2))
    for number in range(60):
        loop.add(request(f"high{number}", 4, priority=P0, max_tokens=2, arrival_s=loop.now_s))
        for _ in range(2):
            loop.step()
            loop.now_s += 0.25
    order = [item.request_id for item in loop.ended]
    # Ageing takes it two classes up after 20 s: 40 requests of 0.5 s.
    assert 38 <= order.index("low") <= 42


def test_preemption_in_the_middle_of_an_image_frees_its_feature_and_encodes_it_again_when_evicted() -> None:
    loop = EngineLoop(config(max_num_batched_tokens=8, feature_cache_bytes=100, enable_prefix_caching=False))
    loop.add(request("a", [image("cat", 20), 1], max_tokens=1))
    loop.step()
    loop.scheduler.preempt("a")
    assert loop.scheduler.stats().feature_pinned_bytes == 0
    loop.add(request("b", [image("dog", 4), 1], priority=P0, max_tokens=1))
    encoded = [item.content_hash for plan in loop.run() for item in plan.encode]
    assert encoded == [b"dog", b"cat"]
