"""How requests end, in every state, and that nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from foveal.core.errors import IntegrityError
from foveal.engine.scheduling.request import FinishReason, RequestStatus
from foveal.engine.scheduling.stopping import finish_reason_after
from unit.engine.scheduling.builders import config, image, request
from unit.engine.scheduling.engine_loop import EngineLoop

EOS = 0


def ended_by(token: int, num_output: int = 1, **sampling: object) -> FinishReason | None:
    item = request("a", 5, **{"max_tokens": 10, **sampling})
    item.output_token_ids = [5] * (num_output - 1) + [token]
    return finish_reason_after(item, {EOS}, context_limit=20)


def test_a_stop_token_ends_a_request() -> None:
    assert ended_by(EOS) is FinishReason.STOP
    assert ended_by(6) is None
    assert ended_by(6, stop_token_ids=(6,)) is FinishReason.STOP


def test_ignore_eos_ignores_the_models_end_tokens_but_not_the_requests_own() -> None:
    assert ended_by(EOS, ignore_eos=True) is None
    assert ended_by(EOS, ignore_eos=True, stop_token_ids=(EOS,)) is FinishReason.STOP


def test_no_stop_token_ends_a_request_before_min_tokens() -> None:
    assert ended_by(EOS, num_output=2, min_tokens=3) is None
    assert ended_by(EOS, num_output=3, min_tokens=3) is FinishReason.STOP


def test_length_ends_a_request_at_max_tokens_or_at_the_context_limit() -> None:
    assert ended_by(5, num_output=9) is None
    assert ended_by(5, num_output=10) is FinishReason.LENGTH
    assert ended_by(5, num_output=14, max_tokens=None) is None
    assert ended_by(5, num_output=15, max_tokens=None) is FinishReason.LENGTH


def test_a_stop_token_in_the_last_place_counts_as_stop() -> None:
    assert ended_by(EOS, num_output=10) is FinishReason.STOP


def test_the_stop_token_is_recorded_and_stays_in_the_output() -> None:
    loop = EngineLoop(config(eos_token_ids=(EOS,)), sample=lambda _: EOS)
    loop.add(request("a"))
    loop.step()
    (item,) = loop.ended
    assert (item.stop_token_id, item.output_token_ids, item.status) == (EOS, [EOS], RequestStatus.FINISHED)


def test_without_max_tokens_a_request_ends_where_the_pool_ends() -> None:
    loop = EngineLoop(config(num_blocks=4))
    loop.add(request("a", 5, max_tokens=None))
    loop.run()
    (item,) = loop.ended
    assert (item.num_tokens, item.finish_reason) == (16, FinishReason.LENGTH)


def queued(loop: EngineLoop) -> None:
    loop.scheduler.max_num_seqs = 1
    loop.add(request("other", 30))
    loop.step()
    loop.add(request("a", [1, image("cat", 8), 2]))


def mid_prompt(loop: EngineLoop) -> None:
    loop.add(request("a", 30))
    loop.step()


def mid_image(loop: EngineLoop) -> None:
    loop.add(request("a", [1, image("cat", 20), 2]))
    loop.step()
    assert loop.scheduler.stats().feature_pinned_bytes


def waiting_for_the_encoder(loop: EngineLoop) -> None:
    loop.add(request("other", [image("dog", 20, feature_bytes=1000), 1]))
    loop.step()
    loop.add(request("a", [image("cat"), 2]))
    loop.step()
    item = loop.scheduler.get("a")
    assert item is not None
    assert item.status is RequestStatus.WAITING


def decoding(loop: EngineLoop) -> None:
    loop.add(request("a", 4))
    loop.step()
    loop.step()


def preempted(loop: EngineLoop) -> None:
    mid_image(loop)
    assert loop.scheduler.preempt("a")


def forked(loop: EngineLoop) -> None:
    loop.add(request("a", 6, n=3))
    loop.step()


def in_flight(loop: EngineLoop) -> None:
    mid_image(loop)
    loop.scheduler.schedule(0.0)


STATES = [queued, mid_prompt, mid_image, waiting_for_the_encoder, decoding, preempted, forked, in_flight]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_an_abort_frees_everything_at_once_in_every_state(state: Callable[[EngineLoop], None]) -> None:
    loop = EngineLoop(config(max_num_batched_tokens=10))
    state(loop)
    assert loop.scheduler.abort_group("a")
    assert loop.scheduler.get("a") is None
    loop.scheduler.abort("other")
    loop.scheduler.check_integrity(idle=True)


def test_rows_of_requests_that_ended_or_gave_way_in_flight_are_ignored() -> None:
    loop = EngineLoop(config())
    items = [request(name, 4) for name in "abcd"]
    loop.add(*items)
    plan = loop.scheduler.schedule(0.0)
    samples = loop.runner.execute(plan)
    loop.scheduler.abort("a")
    loop.scheduler.preempt("b")
    loop.scheduler.finish("c", FinishReason.STOP)
    events = loop.scheduler.commit(plan, samples, 0.0)
    assert [event.request.request_id for event in events] == ["d"]
    assert items[1].output_token_ids == []
    loop.run()


def test_an_id_used_again_while_its_old_row_is_in_flight_gets_no_stale_token() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", 4))
    plan = loop.scheduler.schedule(0.0)
    loop.scheduler.abort("a")
    again = request("a", 4)
    loop.add(again)
    assert loop.scheduler.commit(plan, {"a": [7]}, 0.0) == []
    assert again.output_token_ids == []
    loop.run()


def test_a_front_end_can_end_a_request_for_its_own_reason() -> None:
    loop = EngineLoop(config())
    loop.add(request("a"))
    loop.step()
    ended = loop.scheduler.finish("a", FinishReason.STOP)
    assert ended is not None
    assert ended.finish_reason is FinishReason.STOP
    assert loop.scheduler.finish("a", FinishReason.STOP) is None
    loop.scheduler.check_integrity(idle=True)


def test_a_deadline_ends_waiting_and_running_requests_alike() -> None:
    loop = EngineLoop(config(max_num_seqs=1))
    loop.add(*(request(name, deadline_s=deadline) for name, deadline in (("a", 2.0), ("b", 1.0), ("c", None))))
    loop.step()
    assert loop.scheduler.expire(0.9) == []
    assert [(r.request_id, r.finish_reason) for r in loop.scheduler.expire(2.0)] == [
        ("b", FinishReason.TIMEOUT),
        ("a", FinishReason.TIMEOUT),
    ]
    loop.run()


def test_an_old_deadline_does_not_end_a_new_request_of_the_same_id() -> None:
    loop = EngineLoop(config())
    loop.add(request("a", deadline_s=1.0))
    loop.scheduler.abort("a")
    loop.add(request("a", deadline_s=9.0))
    assert loop.scheduler.expire(5.0) == []


def test_deadlines_of_finished_requests_do_not_pile_up() -> None:
    loop = EngineLoop(config())
    for number in range(500):
        loop.add(request(f"r{number}", deadline_s=1e6))
        loop.scheduler.abort(f"r{number}")
    assert len(loop.scheduler._deadlines) < 100


def test_a_failed_step_ends_its_requests_and_only_those_and_trusts_none_of_its_features() -> None:
    loop = EngineLoop(config(max_num_seqs=1))
    loop.add(request("a", [image(), 1]), request("b", [image(), 1]))
    plan = loop.scheduler.schedule(0.0)
    assert [(r.request_id, r.finish_reason) for r in loop.scheduler.fail(plan)] == [("a", FinishReason.ERROR)]
    loop.scheduler.check_integrity()
    loop.runner.features[b"cat"] = 100  # perhaps encoded before the failure
    plan = loop.step()
    assert plan.evicted_features == (b"cat",)
    assert [item.request_id for item in plan.encode] == ["b"]
    loop.run()


def test_the_idle_check_finds_what_is_left() -> None:
    loop = EngineLoop(config())
    loop.add(request("a"))
    with pytest.raises(IntegrityError, match="idle, but 1 requests"):
        loop.scheduler.check_integrity(idle=True)
