"""Limits per tenant: taken when a request is admitted, by its price; corrected when it ends, by what it really used."""

from __future__ import annotations

from foveal.core.errors import RateLimitedError
from foveal.gateway.pricing.price import Price
from foveal.gateway.tenancy.daily_usage import DailyCount, DailyUsage
from foveal.gateway.tenancy.rate import Rate
from foveal.gateway.tenancy.tenant import Tenant, TenantLimits

__all__ = ["RateLimiter", "Reservation"]


class _Tally:
    """What one tenant has taken, and its limits in the form that the hot path needs. Outlives a change of the limits."""

    __slots__ = (
        "concurrent",
        "daily",
        "day",
        "is_limited",
        "request_s",
        "requests",
        "tenant",
        "token_s",
        "tokens",
        "vision",
        "vision_s",
    )

    def __init__(self, tenant: Tenant) -> None:
        self.requests = Rate()
        self.tokens = Rate()
        self.vision = Rate()
        self.concurrent = 0
        self.day = -1
        self.daily = DailyCount()
        self.adopt(tenant)

    def adopt(self, tenant: Tenant) -> None:
        self.tenant = tenant
        limits = tenant.limits
        self.is_limited = limits != TenantLimits()
        # Seconds that one unit takes; 0 without a limit.
        self.request_s = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self.token_s = 60.0 / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
        self.vision_s = 60.0 / limits.vision_ms_per_minute if limits.vision_ms_per_minute else 0.0


class Reservation:
    """What one request holds. `settle` when its usage is known, `release` at its end whatever happened; both idempotent."""

    __slots__ = ("_daily", "_released", "_settled", "_tokens", "_vision_ms", "tally")

    def __init__(self, tally: _Tally, now_s: float) -> None:
        """Of the request itself; `RateLimiter` checked that there is room."""
        if tally.request_s:
            tally.requests.take(tally.request_s, now_s)
        tally.concurrent += 1
        tally.daily.new_requests += 1
        self.tally = tally
        self._daily = tally.daily
        self._tokens = 0
        self._vision_ms = 0.0
        self._settled = False
        self._released = False

    def take(self, price: Price, now_s: float) -> None:
        """Called by `RateLimiter`, once."""
        tally = self.tally
        tokens = self._tokens = price.prompt_tokens + price.output_tokens
        vision_ms = self._vision_ms = price.vision.encode_ms
        self._daily.new_tokens += tokens
        if tally.token_s:
            tally.tokens.take(tokens * tally.token_s, now_s)
        if tally.vision_s and vision_ms:
            tally.vision.take(vision_ms * tally.vision_s, now_s)

    def settle(self, prompt_tokens: int, output_tokens: int, vision_ms: float | None = None) -> None:
        """Real usage; `vision_ms` None leaves the estimate. Real usage above the estimate is owed."""
        if not self._settled:
            self._settled = True
            self._correct(
                prompt_tokens + output_tokens - self._tokens, 0.0 if vision_ms is None else vision_ms - self._vision_ms
            )

    def release(self) -> None:
        """Ends the concurrency. A request that was never settled gives back tokens and vision time; it stays counted as a
        request, or a client that is refused would be free to knock without end."""
        if not self._released:
            self._released = True
            self.tally.concurrent -= 1
            if not self._settled:
                self._settled = True
                self._correct(-self._tokens, -self._vision_ms)

    def _correct(self, tokens: int, vision_ms: float) -> None:
        # As if it had been known when it was taken: time 0 moves the debt without asking what time it is now.
        tally = self.tally
        if tokens:
            self._daily.new_tokens += tokens
            if tally.token_s:
                tally.tokens.take(tokens * tally.token_s, 0.0)
        if vision_ms and tally.vision_s:
            tally.vision.take(vision_ms * tally.vision_s, 0.0)


class RateLimiter:
    """Pure but for its own tallies; belongs to one event loop. Only configured tenants come here, so the table is bounded."""

    def __init__(self, daily: DailyUsage) -> None:
        self.daily = daily
        self._tallies: dict[str, _Tally] = {}

    def reserve(self, tenant: Tenant, price: Price, now_s: float) -> Reservation:
        """All limits or none: a refused request has taken nothing. `now_s` is monotonic.

        Raises RateLimitedError with the time after which the same request will pass if nothing else comes.
        """
        tally = self._tally_of(tenant)
        if tally.is_limited:
            self._check_request(tally, now_s)
            self._check_price(tally, price, now_s)
        reservation = Reservation(tally, now_s)
        reservation.take(price, now_s)
        return reservation

    def enter(self, tenant: Tenant, now_s: float) -> Reservation:
        """The limits that need no price: concurrency and requests. `charge` takes the others. Raises RateLimitedError."""
        tally = self._tally_of(tenant)
        if tally.is_limited:
            self._check_request(tally, now_s)
        return Reservation(tally, now_s)

    def charge(self, entered: Reservation, price: Price, now_s: float) -> None:
        """The limits of tokens and vision time. Raises RateLimitedError; then the request stays counted: finding out its
        price has cost something already."""
        if entered.tally.is_limited:
            self._check_price(entered.tally, price, now_s)
        entered.take(price, now_s)

    def _tally_of(self, tenant: Tenant) -> _Tally:
        tally = self._tallies.get(tenant.id)
        if tally is None or tally.tenant is not tenant:
            tally = self._adopt(tenant)
        day = self.daily.today()
        if day != tally.day:
            tally.day, tally.daily = day, self.daily.count(tenant.id, day)
        return tally

    def _adopt(self, tenant: Tenant) -> _Tally:
        tally = self._tallies.get(tenant.id)
        if tally is None:
            tally = self._tallies[tenant.id] = _Tally(tenant)
        else:
            tally.adopt(tenant)
        return tally

    def _check_request(self, tally: _Tally, now_s: float) -> None:
        tenant = tally.tenant
        limits, burst_s = tenant.limits, tenant.burst_s
        if limits.max_concurrent is not None and tally.concurrent >= limits.max_concurrent:
            raise RateLimitedError(
                f"{tally.concurrent} requests of this tenant are in progress; the limit is {limits.max_concurrent}. Wait for "
                "one to end",
                limit="concurrency",
                retry_after_s=1.0,
            )
        if tally.request_s:
            wait_s = tally.requests.wait_s(tally.request_s, burst_s, now_s)
            if wait_s > 0.0:
                raise _too_fast("requests", "1 request", limits.requests_per_minute, wait_s)
        if limits.requests_per_day is not None:
            self.daily.check(tenant, tally.day, requests=1)

    def _check_price(self, tally: _Tally, price: Price, now_s: float) -> None:
        tenant = tally.tenant
        limits, burst_s = tenant.limits, tenant.burst_s
        tokens, vision_ms = price.prompt_tokens + price.output_tokens, price.vision.encode_ms
        if tally.token_s:
            wait_s = tally.tokens.wait_s(tokens * tally.token_s, burst_s, now_s)
            if wait_s > 0.0:
                raise _too_fast("tokens", f"{tokens:,} tokens", limits.tokens_per_minute, wait_s)
        if tally.vision_s and vision_ms:
            wait_s = tally.vision.wait_s(vision_ms * tally.vision_s, burst_s, now_s)
            if wait_s > 0.0:
                cost = f"{vision_ms:,.0f} ms of image encoding"
                raise _too_fast("vision", cost, limits.vision_ms_per_minute, wait_s)
        if limits.tokens_per_day is not None:
            self.daily.check(tenant, tally.day, tokens=tokens)


def _too_fast(name: str, cost: str, per_minute: float | None, wait_s: float) -> RateLimitedError:
    return RateLimitedError(
        f"this request needs {cost}; the tenant's limit of {per_minute:,.0f} per minute is used up. Try again in "
        f"{wait_s:.1f} s",
        limit=name,
        retry_after_s=wait_s,
    )
