"""The life of one request: admit, find an answer, bring it to the client, account for it.

Every request ends in exactly one outcome (see ExchangeRecord); nothing is tried elsewhere once the client saw a byte.
"""

from __future__ import annotations

import asyncio

from foveal.core.errors import OverloadedError, RequestError, RequestTimeoutError
from foveal.gateway.resilience.outcome import Outcome as AttemptOutcome
from foveal.gateway.serving.asking import Opened
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.delivery import deliver_stream, deliver_whole
from foveal.gateway.serving.error_answers import client_error, error_answer, error_code, error_event
from foveal.gateway.serving.fallback import Answered, open_with_fallback
from foveal.gateway.serving.forwarder import answer_outcome, failure_outcome
from foveal.gateway.serving.headers import SECURITY_HEADERS, request_id_of
from foveal.gateway.serving.intake import Admitted, Intake, RequestIds
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.relay import BackendErrorEvent
from foveal.gateway.serving.usage_tail import UsageTail
from foveal.gateway.tenancy.feedback import AnswerOrigin
from foveal.gateway.wire.incoming import Incoming
from foveal.gateway.wire.upstream import UpstreamError
from foveal.observability.exchange_record import ExchangeRecord, Outcome
from foveal.observability.logs import get_logger
from foveal.observability.waterfall import Waterfall

__all__ = ["Exchange"]

_log = get_logger("foveal.gateway")
_PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


class Exchange:
    """The handler of HotServer. `parts` may be replaced at any time; a request keeps those it began with."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._ids = RequestIds()

    async def __call__(self, incoming: Incoming) -> None:
        parts = self.parts
        call_id = self._ids.new()
        record = ExchangeRecord(
            (request_id_of(incoming.headers) or call_id.encode()).decode(),
            path=_PATHS[incoming.endpoint],
            body_bytes=len(incoming.body),
        )
        waterfall = Waterfall(parts.clock.now_s, incoming.received_s)
        waterfall.mark("read", incoming.body_done_s)
        trace = parts.observer.begin(record, incoming.headers.get(b"traceparent"), incoming.received_s)
        try:
            with parts.in_flight.enter():
                await self._serve(parts, incoming, call_id, record, waterfall)
        except asyncio.CancelledError:
            if incoming.disconnected or not parts.in_flight.cut_off:
                record.outcome, record.code = "aborted", "client_left"
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            _report(incoming, record, _cut_off())
        except Exception as error:
            _report(incoming, record, error)
        finally:
            waterfall.mark("finish")
            parts.observer.end(record, waterfall, trace)

    async def _serve(
        self, parts: Parts, incoming: Incoming, call_id: str, record: ExchangeRecord, waterfall: Waterfall
    ) -> None:
        admitted = await Intake(parts).admit(incoming, call_id, record, waterfall)
        call = admitted.call
        try:
            async with asyncio.timeout(max(0.0, call.deadline_s - parts.clock.now_s())):
                await self._answer(parts, incoming, admitted, record, waterfall)
        except TimeoutError:
            raise RequestTimeoutError(
                f"the answer was not complete after {call.deadline_s - call.arrival_s:g} s; lower max_tokens, send smaller "
                "images, or raise timeouts.total_s"
            ) from None
        finally:
            admitted.reservation.release()

    async def _answer(
        self, parts: Parts, incoming: Incoming, admitted: Admitted, record: ExchangeRecord, waterfall: Waterfall
    ) -> None:
        call = admitted.call
        answered = await open_with_fallback(parts, call, record, waterfall)
        opened = answered.opened
        tail = UsageTail()
        outcome, result = AttemptOutcome.CLIENT_GONE, None
        try:
            await self._deliver(incoming, call, answered, tail, record, waterfall)
            outcome = answer_outcome(opened.answer.head.status)
        except UpstreamError as error:
            outcome = failure_outcome(error)
            raise
        except TimeoutError:
            outcome = AttemptOutcome.TIMED_OUT
            raise
        finally:
            await opened.close(outcome, result)
            self._account(parts, admitted, opened, tail, record)

    async def _deliver(
        self,
        incoming: Incoming,
        call: Call,
        answered: Answered,
        tail: UsageTail,
        record: ExchangeRecord,
        waterfall: Waterfall,
    ) -> None:
        answer = answered.opened.answer
        record.status = answer.head.status
        try:
            if answer.whole is None:
                await deliver_stream(incoming, call, answered, tail, waterfall, record)
            else:
                deliver_whole(incoming, call, answered, tail, waterfall, record)
        finally:
            waterfall.mark("stream")
        record.outcome, record.code = _outcome_of_status(answer.head.status)

    def _account(
        self, parts: Parts, admitted: Admitted, opened: Opened, tail: UsageTail, record: ExchangeRecord
    ) -> None:
        """What the answer cost, as far as it came."""
        call, status = admitted.call, opened.answer.head.status
        if status != 200:
            return
        usage = tail.usage()
        if usage is not None:
            record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
        else:
            # A stream without usage: about one token per event, less the role, the end and [DONE].
            record.completion_tokens = max(0, tail.num_events - 3)
        admitted.reservation.settle(record.prompt_tokens or call.price.prompt_tokens, record.completion_tokens)
        if tail.finish_reason is not None:
            record.finish_reasons = (tail.finish_reason,)
        spec = opened.lease.backend
        origin = AnswerOrigin(spec.model, spec.version, spec.id)
        parts.tenancy.feedback.remember(call.tenant.id, record.request_id, origin)


def _report(incoming: Incoming, record: ExchangeRecord, error: BaseException) -> None:
    """The explicit error: as a status before the first byte, as an event in a stream, as a broken connection otherwise."""
    told = client_error(error)
    record.code, record.outcome = error_code(error), _outcome_of_error(told)
    if not isinstance(told, RequestError):
        _log.error("unexpected error", request_id=record.request_id, exc_info=error)
    if not incoming.started:
        answer = error_answer(error)
        record.status = answer.status
        headers = [*answer.headers, (b"x-request-id", record.request_id.encode()), SECURITY_HEADERS[0]]
        incoming.respond(answer.status, headers, answer.body)
    elif isinstance(error, BackendErrorEvent):
        incoming.finish()
    elif record.stream:
        incoming.finish(error_event(error))
    else:
        incoming.abort()


def _outcome_of_error(error: BaseException) -> Outcome:
    if isinstance(error, OverloadedError):
        return "shed"
    if isinstance(error, RequestTimeoutError):
        return "timeout"
    if isinstance(error, RequestError):
        return "limited" if error.status == 429 else "client_error" if error.status < 500 else "error"
    return "error"


def _outcome_of_status(status: int) -> tuple[Outcome, str]:
    """Of a backend's own answer, passed on."""
    if status < 400:
        return "success", ""
    if status == 504 or status == 408:
        return "timeout", f"backend_{status}"
    return ("client_error" if status < 500 and status != 429 else "error"), f"backend_{status}"


def _cut_off() -> OverloadedError:
    return OverloadedError(
        "the gateway shut down before the answer was complete; retry, so that another one answers", retry_after_s=1.0
    )
