"""How fast memory can be read at this moment."""

from __future__ import annotations

import time

import numpy as np

from foveal.kernels.native.extension import require_native

__all__ = ["BandwidthMeter"]


class BandwidthMeter:
    """Reads a buffer far larger than the caches. Raises ConfigurationError without native kernels."""

    def __init__(self, threads: int, mib: int = 512) -> None:
        self._read_all = require_native().read_all
        self._words = np.ones(mib << 17, dtype=np.uint64)
        self._threads = threads

    def gb_per_s(self) -> float:
        """The better of two passes: the first one may wake cores."""
        return max(self._pass(), self._pass())

    def _pass(self) -> float:
        started = time.perf_counter()
        self._read_all(self._words, self._threads)
        return self._words.nbytes / (time.perf_counter() - started) / 1e9
