"""From an admitted request to the first byte of an answer: slots and retries. Nothing was shown to the client yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from foveal.core.clock import Clock
from foveal.core.priority import Priority
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.resilience.retry_policy import RetryPolicy
from foveal.gateway.serving.asking import AttemptMetrics, Opened
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.forwarder import answer_outcome, failure_outcome
from foveal.gateway.serving.hedging import Hedging
from foveal.gateway.serving.seats import Seats
from foveal.gateway.wire.upstream import UpstreamError
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall

__all__ = ["Attempts"]

_MAX_CONNECTS = 16
"""Failed connections of one request: nothing was sent, so they cost no budget and no attempt; time ends them, too."""


class Attempts:
    def __init__(
        self,
        hedging: Hedging,
        seats: Seats,
        pool: BackendPool,
        retries: RetryPolicy,
        wait_s: Callable[[Priority], float],
        metrics: AttemptMetrics,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`wait_s`: longest wait in the queue of a class, seconds."""
        self._hedging = hedging
        self._seats = seats
        self._pool = pool
        self._retries = retries
        self._wait_s = wait_s
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep

    async def open(self, call: Call, record: ExchangeRecord, waterfall: Waterfall) -> Opened:
        """An answer that may be shown: a success, a client's error, or the last failure once nothing more may be tried.

        Whoever gets it closes it. Raises UpstreamError (the last attempt's), OverloadedError and its kinds (no slot).
        """
        self._retries.on_request()
        failed: set[str] = set()
        sends = connects = 0
        # From now, not from the arrival: a fallback's queue is another one than that in which the time went.
        until_s = min(self._clock.now_s() + self._wait_s(call.priority), call.deadline_s)
        while True:
            lease = await self._seat(call, until_s, failed, waterfall)
            backend = record.backend = lease.backend.id
            record.attempts += 1
            stage = "status"
            try:
                opened = await self._hedging.ask(call, lease, failed)
                outcome = answer_outcome(opened.answer.head.status)
            except UpstreamError as error:
                stage, outcome = error.stage, failure_outcome(error)
                if stage == "connect":
                    connects += 1
                sends += stage != "connect"
                if not self._may_go_on(outcome, sends, connects, call):
                    waterfall.mark("retry")
                    raise
            else:
                sends += 1
                if not outcome.may_retry or not self._may_go_on(outcome, sends, connects, call):
                    waterfall.mark("backend")
                    record.backend = opened.lease.backend.id
                    return opened
                failed.add(opened.lease.backend.id)
                await opened.close(outcome)
            if call.deadline_s > until_s and sends + connects == 1:
                # A request that was served late must not find its time in the queue used up.
                until_s = min(self._clock.now_s() + self._wait_s(call.priority), call.deadline_s)
            failed.add(backend)
            self._metrics.count("retries_total", backend, stage)
            await self._back_off(call, failed, sends + connects)
            waterfall.mark("retry")

    async def _seat(self, call: Call, until_s: float, failed: set[str], waterfall: Waterfall) -> Lease:
        waited_s = call.waited_s
        try:
            return await self._seats.take(call, until_s, frozenset(failed))
        finally:
            waterfall.mark("queue" if call.waited_s > waited_s else "route")

    async def _back_off(self, call: Call, failed: set[str], attempts: int) -> None:
        candidates = self._pool.candidates(call.model, call.priority, self._clock.now_s(), frozenset(failed))
        elsewhere = any(load.spec.id not in failed for load in candidates)
        backoff_s = self._retries.backoff_s(attempts, elsewhere)
        if backoff_s > 0:
            await self._sleep(backoff_s)

    def _may_go_on(self, outcome: Outcome, sends: int, connects: int, call: Call) -> bool:
        now_s = self._clock.now_s()
        if outcome is Outcome.CONNECT_FAILED:
            return connects < _MAX_CONNECTS and now_s < call.deadline_s
        if not self._retries.may_retry(outcome, sends, False, now_s, call.deadline_s):
            return False
        if self._retries.try_spend(now_s):
            return True
        self._metrics.count("retries_refused_total")
        return False
