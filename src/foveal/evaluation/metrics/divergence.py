"""How far one next-token distribution is from another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["kl_divergence", "log_softmax"]

Floats = npt.NDArray[np.float64]
_ROWS_AT_ONCE = 64


def log_softmax(logits: npt.ArrayLike) -> Floats:
    """Over the last axis, in float64; exact for any finite logits, whatever their size."""
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def kl_divergence(reference_logits: npt.NDArray[np.floating], logits: npt.NDArray[np.floating]) -> Floats:
    """KL(reference || other) in nats: logits [T, vocab] each -> [T], never negative.

    Computed in float64: an 8-bit model differs by 1e-4 nats, which float32 cannot tell from rounding. Raises ValueError
    when the shapes differ.
    """
    if reference_logits.shape != logits.shape:
        raise ValueError(
            f"logits are {reference_logits.shape} and {logits.shape}; one row per common position is needed"
        )
    divergences = np.empty(len(logits))
    for start in range(0, len(logits), _ROWS_AT_ONCE):  # 64 rows of a 50k vocabulary are 25 MB in float64
        rows = slice(start, start + _ROWS_AT_ONCE)
        reference = log_softmax(reference_logits[rows])
        divergences[rows] = (np.exp(reference) * (reference - log_softmax(logits[rows]))).sum(axis=-1)
    return np.maximum(divergences, 0.0)
