"""Limits per tenant: taken when a request is admitted, by its price; corrected when it ends, by what it really used."""

from __future__ import annotations

from foveal.core.errors import RateLimitedError
from foveal.gateway.pricing.price import Price
from foveal.gateway.tenancy.daily_usage import DailyUsage
from foveal.gateway.tenancy.rate import Rate
from foveal.gateway.tenancy.tenant import Tenant, TenantLimits

__all__ = ["RateLimiter", "Reservation"]

_UNLIMITED = TenantLimits()


class _Tally:
    """What one tenant has taken. Survives a change of its limits."""

    __slots__ = ("concurrent", "requests", "tokens", "vision_ms")

    def __init__(self) -> None:
        self.requests = Rate()
        self.tokens = Rate()
        self.vision_ms = Rate()
        self.concurrent = 0


class Reservation:
    """What one request holds. `settle` when its usage is known, `release` at its end whatever happened; both idempotent."""

    __slots__ = ("_day", "_limiter", "_released", "_settled", "_tally", "_tenant", "_tokens", "_vision_ms")

    def __init__(self, limiter: RateLimiter, tenant: Tenant, tally: _Tally, price: Price, day: int) -> None:
        self._limiter = limiter
        self._tenant = tenant
        self._tally = tally
        self._tokens = price.prompt_tokens + price.output_tokens
        self._vision_ms = price.vision.encode_ms
        self._day = day
        self._settled = False
        self._released = False

    def settle(self, prompt_tokens: int, output_tokens: int, vision_ms: float | None = None) -> None:
        """Real usage; `vision_ms` None leaves the estimate. Real usage above the estimate is owed."""
        if not self._settled:
            self._settled = True
            vision = self._vision_ms if vision_ms is None else vision_ms
            self._correct(prompt_tokens + output_tokens - self._tokens, vision - self._vision_ms)

    def release(self) -> None:
        """Ends the concurrency. A request that was never settled gives back tokens and vision time; it stays counted as a
        request, or a client that is refused would be free to knock without end."""
        if not self._released:
            self._released = True
            self._tally.concurrent -= 1
            if not self._settled:
                self._settled = True
                self._correct(-self._tokens, -self._vision_ms)

    def _correct(self, tokens: int, vision_ms: float) -> None:
        limits = self._tenant.limits
        # As if it had been known when it was taken: time 0 moves the debt without asking what time it is now.
        if tokens and limits.tokens_per_minute is not None:
            self._tally.tokens.take(tokens, limits.tokens_per_minute, 0.0)
        if vision_ms and limits.vision_ms_per_minute is not None:
            self._tally.vision_ms.take(vision_ms, limits.vision_ms_per_minute, 0.0)
        if tokens:
            self._limiter.daily.correct(self._tenant.id, self._day, tokens)


class RateLimiter:
    """Pure but for its own tallies; belongs to one event loop. Only configured tenants come here, so the table is bounded."""

    def __init__(self, daily: DailyUsage) -> None:
        self.daily = daily
        self._tallies: dict[str, _Tally] = {}

    def reserve(self, tenant: Tenant, price: Price, now_s: float) -> Reservation:
        """All limits or none: a refused request has taken nothing. `now_s` is monotonic.

        Raises RateLimitedError with the time after which the same request will pass if nothing else comes.
        """
        tally = self._tallies.get(tenant.id)
        if tally is None:
            tally = self._tallies[tenant.id] = _Tally()
        limits = tenant.limits
        day = self.daily.today()
        if limits != _UNLIMITED:
            tokens = price.prompt_tokens + price.output_tokens
            self._check(tenant, tally, price, tokens, day, now_s)
            if limits.requests_per_minute is not None:
                tally.requests.take(1, limits.requests_per_minute, now_s)
            if limits.tokens_per_minute is not None:
                tally.tokens.take(tokens, limits.tokens_per_minute, now_s)
            if limits.vision_ms_per_minute is not None:
                tally.vision_ms.take(price.vision.encode_ms, limits.vision_ms_per_minute, now_s)
        tally.concurrent += 1
        self.daily.add(tenant.id, day, 1, price.prompt_tokens + price.output_tokens)
        return Reservation(self, tenant, tally, price, day)

    def _check(self, tenant: Tenant, tally: _Tally, price: Price, tokens: int, day: int, now_s: float) -> None:
        limits, burst_s = tenant.limits, tenant.burst_s
        if limits.max_concurrent is not None and tally.concurrent >= limits.max_concurrent:
            raise RateLimitedError(
                f"{tally.concurrent} requests of this tenant are in progress; the limit is {limits.max_concurrent}. Wait for "
                "one to end",
                limit="concurrency",
                retry_after_s=1.0,
            )
        for name, rate, cost, per_minute in (
            ("requests", tally.requests, 1.0, limits.requests_per_minute),
            ("tokens", tally.tokens, tokens, limits.tokens_per_minute),
            ("vision", tally.vision_ms, price.vision.encode_ms, limits.vision_ms_per_minute),
        ):
            if per_minute is not None and cost:
                wait_s = rate.wait_s(cost, per_minute, burst_s, now_s)
                if wait_s > 0.0:
                    raise _too_fast(name, cost, per_minute, wait_s)
        self.daily.check(tenant, day, tokens)


_UNITS = {"requests": "request", "tokens": "tokens", "vision": "ms of image encoding"}


def _too_fast(name: str, cost: float, per_minute: float, wait_s: float) -> RateLimitedError:
    unit = _UNITS[name]
    return RateLimitedError(
        f"this request needs {cost:,.0f} {unit}; the tenant's limit of {per_minute:,.0f} per minute is used up. Try again "
        f"in {wait_s:.1f} s",
        limit=name,
        retry_after_s=wait_s,
    )
