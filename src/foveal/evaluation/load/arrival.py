"""When requests arrive in an open loop: independent of how fast the server answers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from foveal.core.errors import ConfigurationError

__all__ = ["arrival_offsets"]


def arrival_offsets(
    rate_per_s: float,
    rng: random.Random,
    *,
    burstiness: float = 1.0,
    num_requests: int | None = None,
    duration_s: float | None = None,
) -> list[float]:
    """Seconds after the start at which each request is due; the first at 0.

    Gaps are gamma distributed with shape `burstiness` and mean 1 / rate: 1 is a Poisson process, below 1 requests clump,
    above 1 they even out (the definition that vLLM's benchmark uses). An infinite rate sends all at once. Ends at
    `num_requests` or before `duration_s`, whichever comes first. Raises ConfigurationError for values that cannot work.
    """
    if not rate_per_s > 0:
        raise ConfigurationError(f"the request rate is {rate_per_s:g} per second; it must be above 0")
    if not 0 < burstiness < math.inf:
        raise ConfigurationError(f"burstiness is {burstiness:g}; it must be above 0 (1 is Poisson)")
    if num_requests is None and (duration_s is None or math.isinf(rate_per_s)):
        raise ConfigurationError("an open loop needs a number of requests, or a duration and a finite rate")
    offsets: list[float] = []
    for offset in _offsets(rate_per_s, burstiness, rng):
        if len(offsets) == num_requests or (duration_s is not None and offset >= duration_s):
            return offsets
        offsets.append(offset)
    raise AssertionError("the process of arrivals never ends")


def _offsets(rate_per_s: float, burstiness: float, rng: random.Random) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        if not math.isinf(rate_per_s):
            now += rng.gammavariate(burstiness, 1.0 / (rate_per_s * burstiness))
