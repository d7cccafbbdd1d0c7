"""The life of one request: admit, find an answer, bring it to the client, account for it.

Every request ends in exactly one outcome (see ExchangeRecord); nothing is tried elsewhere once the client saw a byte.
"""

from __future__ import annotations

import asyncio

from foveal.core.errors import (
    OverloadedError,
    RateLimitedError,
    RequestError,
    RequestTimeoutError,
    UnauthorizedError,
)
from foveal.gateway.caching.flight import FlightBrokenError
from foveal.gateway.serving.error_answers import client_error, error_answer, error_code, error_event
from foveal.gateway.serving.headers import SECURITY_HEADERS, request_id_of
from foveal.gateway.serving.intake import PATHS, Intake, RequestIds
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.relay import BackendStreamError
from foveal.gateway.serving.shared_answers import SharedAnswers
from foveal.gateway.wire.incoming import Incoming
from foveal.observability.exchange_record import ExchangeRecord, Outcome
from foveal.observability.logs import get_logger
from foveal.observability.waterfall import Waterfall

__all__ = ["Exchange"]

_log = get_logger("foveal.gateway")


class Exchange:
    """The handler of HotServer. `parts` and `shared` may be replaced at any time; a request keeps those it began with."""

    def __init__(self, parts: Parts, shared: SharedAnswers) -> None:
        self.parts = parts
        self.shared = shared
        self._ids = RequestIds()

    async def __call__(self, incoming: Incoming) -> None:
        parts, shared = self.parts, self.shared
        call_id = self._ids.new()
        record = ExchangeRecord(
            (request_id_of(incoming.headers) or call_id.encode()).decode(),
            path=PATHS[incoming.endpoint],
            body_bytes=len(incoming.body),
        )
        waterfall = Waterfall(parts.clock.now_s, incoming.received_s)
        waterfall.mark("read", incoming.body_done_s)
        trace = parts.observer.begin(record, incoming.headers.get(b"traceparent"), incoming.received_s)
        try:
            task = parts.in_flight.enter()
            try:
                await self._serve(parts, shared, incoming, call_id, record, waterfall)
            finally:
                parts.in_flight.leave(task)
        except asyncio.CancelledError:
            if incoming.disconnected or not parts.in_flight.cut_off:
                record.outcome, record.code = "aborted", "client_left"
                raise
            task.uncancel()
            _report(incoming, record, _cut_off())
        except FlightBrokenError as error:
            # What happened to the shared request happened to all who read along.
            _report(incoming, record, error.__cause__ or error)
        except Exception as error:
            _count(parts, record, error)
            _report(incoming, record, error)
        finally:
            waterfall.mark("finish")
            parts.observer.end(record, waterfall, trace)

    async def _serve(
        self,
        parts: Parts,
        shared: SharedAnswers,
        incoming: Incoming,
        call_id: str,
        record: ExchangeRecord,
        waterfall: Waterfall,
    ) -> None:
        admitted = await Intake(parts).admit(incoming, call_id, record, waterfall)
        call = admitted.call
        try:
            async with asyncio.timeout(max(0.0, call.deadline_s - parts.clock.now_s())):
                await shared.answer(parts, incoming, admitted, record, waterfall)
        except TimeoutError:
            raise RequestTimeoutError(
                f"the answer was not complete after {call.deadline_s - call.arrival_s:g} s; lower max_tokens, send smaller "
                "images, or raise timeouts.total_s"
            ) from None
        finally:
            admitted.close()


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
    elif isinstance(error, BackendStreamError):
        incoming.finish()
    elif record.stream:
        incoming.finish(error_event(error))
    else:
        incoming.abort()


def _count(parts: Parts, record: ExchangeRecord, error: Exception) -> None:
    if isinstance(error, RateLimitedError):
        tenant = parts.metrics.tenant_label(record.tenant)
        parts.metrics.count("limited_total", tenant, error.limit)
    elif isinstance(error, UnauthorizedError):
        parts.metrics.count("auth_failures_total")


def _outcome_of_error(error: BaseException) -> Outcome:
    if isinstance(error, OverloadedError):
        return "shed"
    if isinstance(error, RequestTimeoutError):
        return "timeout"
    if isinstance(error, RequestError):
        return "limited" if error.status == 429 else "client_error" if error.status < 500 else "error"
    return "error"


def _cut_off() -> OverloadedError:
    return OverloadedError(
        "the gateway shut down before the answer was complete; retry, so that another one answers", retry_after_s=1.0
    )
