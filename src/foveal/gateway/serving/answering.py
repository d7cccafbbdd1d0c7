"""A fresh answer for an admitted call: found, delivered, accounted for."""

from __future__ import annotations

from foveal.gateway.pricing.model_pricer import Settlement
from foveal.gateway.pricing.rates import Timing
from foveal.gateway.resilience.outcome import Outcome as AttemptOutcome
from foveal.gateway.serving.asking import Opened
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.delivery import Sink, deliver
from foveal.gateway.serving.fallback import Answered, open_with_fallback
from foveal.gateway.serving.forwarder import answer_outcome, failure_outcome
from foveal.gateway.serving.intake import Admitted
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.usage_tail import UsageTail
from foveal.gateway.tenancy.feedback import AnswerOrigin
from foveal.gateway.wire.upstream import UpstreamError
from foveal.observability.exchange_record import ExchangeRecord, Outcome
from foveal.observability.logs import get_logger
from foveal.observability.waterfall import Waterfall

__all__ = ["answer_freshly"]

_log = get_logger("foveal.gateway")
_EVENTS_WITHOUT_TOKEN = 3
"""Of a stream without usage: role, finish reason, [DONE]. All others hold about one token."""


async def answer_freshly(
    parts: Parts, sink: Sink, admitted: Admitted, record: ExchangeRecord, waterfall: Waterfall
) -> Answered:
    """Raises what Attempts.open and `deliver` raise. However it ends: the slot is free and the reservation settled."""
    call = admitted.call
    answered = await open_with_fallback(parts, call, record, waterfall)
    opened = answered.opened
    tail = UsageTail()
    outcome = AttemptOutcome.CLIENT_GONE
    try:
        await deliver(sink, call, answered, tail, waterfall, record)
        outcome = answer_outcome(opened.answer.head.status)
        record.outcome, record.code = _outcome_of_status(opened.answer.head.status)
    except UpstreamError as error:
        outcome = failure_outcome(error)
        raise
    finally:
        waterfall.mark("stream")
        await opened.close(outcome)
        try:
            _account(parts, admitted, opened, tail, record, waterfall, complete=outcome is AttemptOutcome.SUCCESS)
        except Exception as error:
            # The client has its answer: a mistake in the books must not take it back.
            _log.error("an answer could not be accounted for", request_id=record.request_id, exc_info=error)
    return answered


def _account(
    parts: Parts,
    admitted: Admitted,
    opened: Opened,
    tail: UsageTail,
    record: ExchangeRecord,
    waterfall: Waterfall,
    *,
    complete: bool,
) -> None:
    """What the answer cost, as far as it came."""
    call = admitted.call
    if opened.answer.head.status != 200:
        return
    usage = tail.usage()
    if usage is not None:
        record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    else:
        record.completion_tokens = max(0, tail.num_events - _EVENTS_WITHOUT_TOKEN)
    admitted.reservation.settle(record.prompt_tokens or call.price.prompt_tokens, record.completion_tokens)
    record.finish_reasons = tail.finish_reasons
    spec = opened.lease.backend
    parts.tenancy.feedback.remember(call.tenant.id, record.request_id, AnswerOrigin(spec.model, spec.version, spec.id))
    if complete and usage is not None:
        settlement = Settlement(
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            image_tokens=usage.image_tokens or None,
            cached_tokens=usage.cached_tokens,
            timing=_timing(call, opened, waterfall),
        )
        parts.pricing.settle(call.view, settlement, call.model)


def _timing(call: Call, opened: Opened, waterfall: Waterfall) -> Timing:
    is_stream = opened.answer.whole is None
    first_byte_ms = opened.first_byte_s * 1e3
    stream_s = waterfall.spans[-1][2] - waterfall.spans[-1][1]
    return Timing(first_byte_ms, first_byte_ms + (stream_s * 1e3 if is_stream else 0.0), is_stream)


def _outcome_of_status(status: int) -> tuple[Outcome, str]:
    """Of a backend's own answer, passed on."""
    if status < 400:
        return "success", ""
    if status in (408, 504):
        return "timeout", f"backend_{status}"
    return ("client_error" if status < 500 and status != 429 else "error"), f"backend_{status}"
