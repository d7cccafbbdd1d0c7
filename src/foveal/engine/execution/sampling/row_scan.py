"""The usual row, sampled in a few passes over its logits that stay in the processor's cache.

Sampling needs little of a vocabulary: the tokens near the best one, and the weight of all others in one sum. Walking all
rows of a batch operation by operation, as `filters` and `draw` do, streams a matrix of rows x vocabulary through memory a
dozen times. Here each row is read once from memory and stays near; what comes out is exactly what they would take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.vocabulary_ops import Floats, Ints

__all__ = ["RowScan", "ScannedRow"]


@dataclass(frozen=True, slots=True)
class ScannedRow:
    """Candidates [n] of one row in ascending order of their ids."""

    tokens: Ints
    logits: Floats
    """Divided by the temperature."""
    threshold: float
    """The lowest logit of a candidate could have been this."""
    log_tail: float
    """log of the summed exp(logit) of all other tokens that may be drawn; -inf if there are none."""


class RowScan:
    """Holds a buffer for a vocabulary; one thread."""

    def __init__(self, vocab_size: int, window: float, most: int) -> None:
        """Candidates lie within `window` nats of the best; rows with more than `most` of them are left to others."""
        self._buffer = np.empty(vocab_size, dtype=np.float32)
        self._window = window
        self._most = most

    def scan(self, row: npt.NDArray[np.float32], params: SamplingParams) -> ScannedRow | None:
        """`row` [vocab] are logits. None where the window does not settle it: a flat distribution, NaN, a wide nucleus."""
        temperature = np.float32(params.temperature)
        peak = row.max()
        best = float(np.float32(peak / temperature))
        edge = np.float32(best - self._window)
        # A little more than the window, because division rounds; the exact comparison follows on the few.
        tokens = (row >= np.float32(peak - 1.001 * self._window * params.temperature)).nonzero()[0]
        if not 0 < len(tokens) <= self._most:
            return None
        scaled = row[tokens] / temperature
        inside = scaled >= edge
        if not inside.all():
            tokens, scaled = tokens[inside], scaled[inside]
        logits = scaled.astype(np.float64)
        limited = 0 < params.top_k < len(row)
        if not limited and params.top_p >= 1.0 and params.min_p <= 0.0:
            head = float(np.exp(logits - best).sum())
            tail = max(self._weight(row, peak, temperature) - head, 0.0)
            return ScannedRow(tokens, logits, float(edge), math.log(tail) + best if tail > 0.0 else -math.inf)
        floor = self._floor(row, peak, temperature, np.sort(logits)[::-1], params, limited)
        if floor is None or floor < float(edge):
            return None
        kept = scaled >= np.float32(floor)
        return ScannedRow(tokens[kept], logits[kept], floor, -math.inf)

    def _floor(
        self,
        row: npt.NDArray[np.float32],
        peak: np.float32,
        temperature: np.float32,
        largest: Floats,
        params: SamplingParams,
        limited: bool,
    ) -> float | None:
        """The lowest logit that top-k, top-p and min-p keep, from the candidates' logits, `largest` first; see filters."""
        best, floor = float(largest[0]), -math.inf
        if limited:
            if params.top_k > len(largest):
                return None
            floor = float(largest[params.top_k - 1])
        if params.top_p < 1.0:
            weights = np.exp(largest - best) * (largest >= floor)
            cumulative = weights.cumsum()
            total = float(cumulative[-1]) if limited else self._weight(row, peak, temperature)
            count = int(((cumulative - weights < params.top_p * total) & (largest >= floor)).sum())
            if count == len(largest):
                return None
            floor = float(largest[count - 1])
        if params.min_p > 0.0:
            floor = max(floor, best + math.log(params.min_p))
        return floor

    def _weight(self, row: npt.NDArray[np.float32], peak: np.float32, temperature: np.float32) -> float:
        """Sum of exp(logit - best logit) over the vocabulary, logits divided by the temperature."""
        buffer = self._buffer
        np.subtract(row, peak, out=buffer)
        if temperature != 1.0:
            np.multiply(buffer, np.float32(1.0) / temperature, out=buffer)
        np.exp(buffer, out=buffer)
        return float(buffer.sum())
