"""From records to the numbers people compare. Pure: the same records give the same report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foveal.evaluation.load.record import RequestRecord

__all__ = ["LatencySla", "Percentiles", "Report", "percentile", "summarise"]


@dataclass(frozen=True, slots=True)
class LatencySla:
    """Limits in milliseconds; None is no limit. An answer is good if it is complete and within all of them."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    @property
    def is_set(self) -> bool:
        return any(limit is not None for limit in (self.ttft_ms, self.tpot_ms, self.e2e_ms))

    def is_met(self, record: RequestRecord) -> bool:
        """A latency that does not exist (TPOT of a one-token answer) meets its limit; TTFT must exist."""
        if not record.ok:
            return False
        if self.ttft_ms is not None and (record.ttft_s is None or record.ttft_s * 1e3 > self.ttft_ms):
            return False
        if self.tpot_ms is not None and record.tpot_s is not None and record.tpot_s * 1e3 > self.tpot_ms:
            return False
        return self.e2e_ms is None or record.e2e_s * 1e3 <= self.e2e_ms


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds over `count` values; nan if there are none."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float | None]) -> Percentiles:
        values = sorted(1e3 * value for value in seconds if value is not None)
        if not values:
            return cls(0, *(math.nan,) * 5)
        p50, p95, p99 = (percentile(values, q) for q in (0.50, 0.95, 0.99))
        return cls(len(values), sum(values) / len(values), p50, p95, p99, values[-1])


@dataclass(frozen=True, slots=True)
class Report:
    """Rates are per second of `duration_s`: from the first request due to the last one ended."""

    num_requests: int
    num_ok: int
    errors: dict[str, int]
    """Number of failed requests by kind, most frequent first."""
    duration_s: float
    requests_per_s: float
    """Complete answers."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    ttft: Percentiles
    tpot: Percentiles
    itl: Percentiles
    e2e: Percentiles
    client_lag: Percentiles
    """How late the load generator sent requests. If it is not small, the client was the bottleneck."""
    peak_concurrency: int
    sla: LatencySla
    goodput_per_s: float
    """Answers within the SLA."""
    good_fraction: float
    """Of all requests, failed ones included."""
    ttft_by_priority: dict[str, Percentiles]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; nan becomes null."""
        cleaned = _without_nan(asdict(self))
        assert isinstance(cleaned, dict)
        return cleaned


def summarise(records: Sequence[RequestRecord], sla: LatencySla | None = None) -> Report:
    """Latencies count complete answers only; failures show in `errors` and in the good fraction."""
    sla = sla or LatencySla()
    ok = [record for record in records if record.ok]
    errors = Counter(record.error for record in records if record.error is not None)
    duration_s = max((r.end_s for r in records), default=0.0) - min((r.start_s for r in records), default=0.0)
    num_good = sum(sla.is_met(record) for record in records)
    prompt, completion = sum(r.prompt_tokens for r in ok), sum(r.completion_tokens for r in ok)
    priorities = sorted({record.priority for record in ok if record.priority is not None})

    def rate(amount: int) -> float:
        return amount / duration_s if duration_s > 0 else 0.0

    return Report(
        num_requests=len(records),
        num_ok=len(ok),
        errors=dict(errors.most_common()),
        duration_s=duration_s,
        requests_per_s=rate(len(ok)),
        prompt_tokens=prompt,
        cached_tokens=sum(r.cached_tokens for r in ok),
        completion_tokens=completion,
        prompt_tokens_per_s=rate(prompt),
        output_tokens_per_s=rate(completion),
        ttft=Percentiles.of(r.ttft_s for r in ok),
        tpot=Percentiles.of(r.tpot_s for r in ok),
        itl=Percentiles.of(gap for r in ok for gap in r.gaps_s),
        e2e=Percentiles.of(r.e2e_s for r in ok),
        client_lag=Percentiles.of(r.sent_s - r.start_s for r in records),
        peak_concurrency=_peak_concurrency(records),
        sla=sla,
        goodput_per_s=rate(num_good),
        good_fraction=num_good / len(records) if records else 0.0,
        ttft_by_priority={
            p.name: Percentiles.of(r.ttft_s for r in ok if r.priority is not None and r.priority == p)
            for p in priorities
        },
    )


def percentile(ascending: Sequence[float], q: float) -> float:
    """Value at quantile q in [0, 1], linear between neighbours (numpy's default). `ascending` must not be empty."""
    position = q * (len(ascending) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (position - low) * (ascending[high] - ascending[low])


def _peak_concurrency(records: Sequence[RequestRecord]) -> int:
    """Most requests in flight at once; one that ends when another is sent does not overlap it."""
    changes = sorted([(r.sent_s, 1) for r in records] + [(r.end_s, -1) for r in records])
    peak = now = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
