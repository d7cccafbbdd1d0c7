"""Whether pictures wait a moment for others of their size (predictive batching, mission row E11)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

__all__ = ["VisionWait"]

RATE_WINDOW_S = 0.1
LEAST_GAIN = 1.2
MOST_TRACKED = 256


class VisionWait:
    """One more picture in the batch must make each at least 1.2 times cheaper, and must be expected in time.

    Expected: pictures of that size came within the last 100 ms at a rate that promises the next before the wait is over.
    Never longer than `most_wait_s`, and never so long that a request would miss its deadline.
    """

    def __init__(self, encode_s: Callable[[Sequence[int]], float], most_wait_s: float, most_patches: int) -> None:
        """`encode_s(patches of each image)` predicts an encoder call; `most_patches` is what one batch may have."""
        self._encode_s = encode_s
        self._most_wait_s = most_wait_s
        self._most_patches = most_patches
        self._arrivals: dict[int, deque[float]] = {}

    def arrived(self, patches: int, now_s: float) -> None:
        """A picture came."""
        self._arrivals.setdefault(patches, deque(maxlen=MOST_TRACKED)).append(now_s)

    def gap_s(self, patches: int, now_s: float) -> float | None:
        """Mean time between pictures of this size over the last 100 ms; None with fewer than two."""
        times = self._arrivals.get(patches)
        if times is None:
            return None
        while times and times[0] < now_s - RATE_WINDOW_S:
            times.popleft()
        if not times:
            del self._arrivals[patches]
        return RATE_WINDOW_S / len(times) if len(times) >= 2 else None

    def gain(self, patches: int, count: int) -> float:
        """How many times cheaper each of `count` pictures gets when one more comes."""
        alone = self._encode_s((patches,) * count) / count
        more = self._encode_s((patches,) * (count + 1)) / (count + 1)
        return alone / more if more > 0.0 else 1.0

    def hold_until_s(self, patches: int, count: int, oldest_s: float, deadline_s: float, now_s: float) -> float | None:
        """Until when `count` waiting pictures of this size should wait; None if they should go now.

        `oldest_s` is when the first of them came, `deadline_s` when the most urgent of their requests has to have its
        first token or leave the queue.
        """
        if (count + 1) * patches > self._most_patches:
            return None
        gap_s = self.gap_s(patches, now_s)
        if gap_s is None:
            return None
        last_s = min(oldest_s + self._most_wait_s, deadline_s - self._encode_s((patches,) * (count + 1)))
        if now_s + gap_s > last_s or self.gain(patches, count) <= LEAST_GAIN:
            return None
        return last_s
