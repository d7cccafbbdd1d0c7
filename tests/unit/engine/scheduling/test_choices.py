"""n > 1: one prompt, several sequences that share its blocks until they write."""

from __future__ import annotations

from itertools import count

import pytest

from foveal.engine.scheduling.plan import ScheduledRow
from foveal.engine.scheduling.request import FinishReason
from unit.engine.scheduling.builders import config, request
from unit.engine.scheduling.engine_loop import EngineLoop


def different_tokens(**changes: object) -> EngineLoop:
    """Each sampled token differs, so choices that share a block by mistake see each other's."""
    tokens = count(100)
    return EngineLoop(config(**changes), sample=lambda _: next(tokens))


def test_the_prompt_of_all_choices_is_computed_once() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=3))
    assert loop.step().rows == (ScheduledRow("a", 0, 6, 3),)
    assert [(e.request.request_id, e.request.index, e.token_ids) for e in loop.events] == [
        ("a", 0, (100,)),
        ("a#1", 1, (101,)),
        ("a#2", 2, (102,)),
    ]
    assert {e.request.group_id for e in loop.events} == {"a"}


def test_choices_share_the_blocks_of_the_prompt_also_the_partly_filled_one() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=3))
    loop.step()
    tables = [e.request.block_table for e in loop.events]
    assert tables[0] == tables[1] == tables[2]
    assert loop.scheduler.stats().kv_blocks_owned == 2


def test_a_shared_block_is_copied_before_a_choice_writes_into_it() -> None:
    """The last holder writes in place: n choices need n - 1 copies. The runner checks each context."""
    loop = different_tokens()
    loop.add(request("a", 6, n=3))
    loop.step()
    tables = [e.request.block_table for e in loop.events]
    shared = tables[0][1]
    plan = loop.step()
    assert [copy.source for copy in plan.copies] == [shared, shared]
    tables = [e.request.block_table for e in loop.events]
    assert len({table[0] for table in tables}) == 1
    assert len({table[1] for table in tables}) == 3
    assert all(not plan.copies for plan in loop.run())


def test_a_full_last_block_needs_no_copy() -> None:
    loop = different_tokens()
    loop.add(request("a", 8, n=3))
    assert all(not plan.copies for plan in loop.run())


def test_a_chunked_prompt_forks_only_when_it_is_complete() -> None:
    loop = different_tokens(max_num_batched_tokens=4)
    loop.add(request("a", 6, n=2))
    assert [row.num_samples for row in loop.step().rows] == [0]
    assert [row.num_samples for row in loop.step().rows] == [2]


def test_a_prompt_preempted_before_it_is_complete_still_forks_once() -> None:
    loop = different_tokens(max_num_batched_tokens=4)
    loop.add(request("a", 6, n=2, max_tokens=3))
    loop.step()
    assert loop.scheduler.preempt("a")
    loop.run()
    assert sorted(item.request_id for item in loop.ended) == ["a", "a#1"]
    assert all(len(item.output_token_ids) == 3 for item in loop.ended)


def test_a_preempted_choice_is_recomputed_alone_and_does_not_fork_again() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=2, max_tokens=4))
    loop.step()
    loop.step()
    loop.scheduler.preempt("a")
    loop.scheduler.preempt("a#1")
    loop.run()
    assert sorted(item.request_id for item in loop.ended) == ["a", "a#1"]


def test_choices_count_as_sequences_from_admission_on() -> None:
    loop = different_tokens(max_num_seqs=4)
    loop.add(request("a", 6, n=3), request("b", 6, n=2), request("c", 6))
    assert [row.request_id for row in loop.step().rows] == ["a"]
    assert loop.scheduler.num_running == 3
    loop.run()
    assert len(loop.ended) == 6


def test_ending_one_choice_leaves_the_others_their_blocks() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=3, max_tokens=9))
    loop.step()
    ended = loop.scheduler.abort("a")
    assert ended is not None
    assert ended.finish_reason is FinishReason.ABORT
    loop.scheduler.check_integrity()
    loop.run()
    assert sorted(item.request_id for item in loop.ended) == ["a#1", "a#2"]


def test_the_first_choice_may_end_with_its_first_token() -> None:
    tokens = count(0)
    loop = EngineLoop(config(eos_token_ids=(0,)), sample=lambda _: next(tokens))
    loop.add(request("a", 6, n=2, max_tokens=3))
    loop.step()
    assert [e.finish_reason for e in loop.events] == [FinishReason.STOP, None]
    loop.run()


def test_aborting_a_group_ends_every_choice_in_every_state() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=3, max_tokens=9), request("b", 6, n=2))
    loop.step()
    loop.scheduler.preempt("a#1")
    assert {item.request_id for item in loop.scheduler.abort_group("a")} == {"a", "a#1", "a#2"}
    assert loop.scheduler.abort_group("a") == []
    loop.run()


def test_aborting_before_the_fork_ends_all_choices_at_once() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=3))
    (ended,) = loop.scheduler.abort_group("a")
    assert ended.fanout == 3
    loop.scheduler.check_integrity(idle=True)


def test_the_deadline_of_a_request_holds_for_all_its_choices() -> None:
    loop = different_tokens()
    loop.add(request("a", 6, n=2, max_tokens=50, deadline_s=5.0))
    loop.step()
    assert sorted(item.request_id for item in loop.scheduler.expire(5.0)) == ["a", "a#1"]
    loop.scheduler.check_integrity(idle=True)


@pytest.mark.parametrize("num_blocks", [6, 7, 8])
def test_choices_that_outgrow_the_pool_together_finish_one_after_the_other(num_blocks: int) -> None:
    loop = different_tokens(num_blocks=num_blocks)
    loop.add(request("a", 6, n=4, max_tokens=18))
    loop.run()
    assert len(loop.ended) == 4
    assert all(len(item.output_token_ids) == 18 for item in loop.ended)
