"""An answer from the call's model, or from its fallback when the model is down, late, full or failing."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.errors import BackendUnavailableError, OverloadedError
from foveal.gateway.queueing.ticket import Ticket
from foveal.gateway.resilience.fallback import FallbackReason, fallback_model, reason_before_queue
from foveal.gateway.serving.asking import Opened
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.forwarder import answer_outcome
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.seats import QueueTimeoutError
from foveal.gateway.wire.upstream import UpstreamError
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall

__all__ = ["Answered", "open_with_fallback"]


@dataclass(slots=True)
class Answered:
    opened: Opened
    reason: FallbackReason | None
    """Why another model than the call's first one answers."""


async def open_with_fallback(parts: Parts, call: Call, record: ExchangeRecord, waterfall: Waterfall) -> Answered:
    """Changes `call.model` and `call.price` when it goes to another model. Raises as Attempts.open does: of the last
    model tried."""
    tried: list[str] = []
    reason: FallbackReason | None = None
    while True:
        tried.append(call.model)
        fallback = fallback_model(parts.config.models[call.model].fallback, tried, call.tenant.models)
        if fallback is None:
            return Answered(await parts.attempts.open(call, record, waterfall), reason)
        now_reason = _reason_before_queue(parts, call)
        if now_reason is None:
            found = await _try(parts, call, record, waterfall)
            if isinstance(found, Opened):
                return Answered(found, reason)
            now_reason = found
        reason = now_reason
        metric_reason = "late" if reason in (FallbackReason.QUEUE_LATE, FallbackReason.QUEUE_FULL) else "open"
        parts.metrics.count("fallbacks_total", call.model, metric_reason)
        call.model = record.served_model = fallback
        call.price = parts.pricing.price(call.view, fallback)
        call.timeouts = parts.config.timeouts_of(fallback)


async def _try(parts: Parts, call: Call, record: ExchangeRecord, waterfall: Waterfall) -> Opened | FallbackReason:
    try:
        opened = await parts.attempts.open(call, record, waterfall)
    except BackendUnavailableError:
        return FallbackReason.PRIMARY_DOWN
    except QueueTimeoutError:
        return FallbackReason.QUEUE_LATE
    except OverloadedError:
        return FallbackReason.QUEUE_FULL
    except UpstreamError:
        return FallbackReason.FAILED
    outcome = answer_outcome(opened.answer.head.status)
    if outcome.may_retry:
        await opened.close(outcome)
        return FallbackReason.FAILED
    return opened


def _reason_before_queue(parts: Parts, call: Call) -> FallbackReason | None:
    now_s = parts.clock.now_s()
    patience_s = parts.config.deadlines_s.of(call.priority)
    queue = parts.dispatcher.queue(call.model)
    expected_s = None
    if queue.waits_before(call.priority):
        ticket = Ticket(
            call.id, call.model, call.tenant.id, call.priority, call.price.cost_ms, call.arrival_s, call.deadline_s
        )
        expected_s = queue.expected_wait_s(ticket, now_s)
    return reason_before_queue(parts.pool.is_available(call.model, now_s), expected_s, patience_s)
