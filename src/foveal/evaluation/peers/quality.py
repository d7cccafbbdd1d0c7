"""Is the fast answer still the right one? Logits and greedy answers against a reference in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LogitComparison", "Quality", "agreeing_share", "compare_logits", "summarise_quality"]

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LogitComparison:
    """One window of text: [positions, vocab] logits of an engine beside the reference's."""

    positions: int
    nll: float
    """Sum over the positions that have a next token, nats."""
    reference_nll: float
    same_top1: int
    squared_error: float
    """Of logits, both centred per position: a constant added to all changes no probability."""
    squared_reference: float
    kl: float
    """Sum of KL(reference || engine), nats."""


@dataclass(frozen=True)
class Quality:
    """Against the reference: 0 positions where the engine gives no logits."""

    positions: int
    perplexity: float | None
    perplexity_ratio: float | None
    """Over the reference's."""
    top1_agreement: float | None
    logit_error: float | None
    """Root mean square of the error over that of the reference's centred logits."""
    kl: float | None
    greedy_agreement: float | None
    """Mean share of an answer before it first differs from the reference's."""
    note: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def compare_logits(logits: Logits, reference: Logits, token_ids: Sequence[int]) -> LogitComparison:
    """Position i predicts token i + 1. Vocabularies padded to different widths are cut to the narrower."""
    width = min(logits.shape[1], reference.shape[1])
    ours, theirs = (_log_softmax(values[:-1, :width]) for values in (logits, reference))
    targets = np.asarray(token_ids[1:])
    rows = np.arange(len(targets))
    centred = [values[:-1, :width].astype(np.float64) for values in (logits, reference)]
    centred = [values - values.mean(1, keepdims=True) for values in centred]
    return LogitComparison(
        positions=len(targets),
        nll=float(-ours[rows, targets].sum()),
        reference_nll=float(-theirs[rows, targets].sum()),
        same_top1=int((ours.argmax(1) == theirs.argmax(1)).sum()),
        squared_error=float(((centred[0] - centred[1]) ** 2).sum()),
        squared_reference=float((centred[1] ** 2).sum()),
        kl=float((np.exp(theirs) * (theirs - ours)).sum()),
    )


def agreeing_share(answer: Sequence[int], reference: Sequence[int]) -> float:
    """Tokens before the first difference, over the length of the reference."""
    same = 0
    for ours, theirs in zip(answer, reference, strict=False):
        if ours != theirs:
            break
        same += 1
    return same / len(reference)


def summarise_quality(windows: Sequence[LogitComparison], agreements: Sequence[float], note: str = "") -> Quality:
    """Either may be empty: what it would have said is None then."""
    greedy = sum(agreements) / len(agreements) if agreements else None
    positions = sum(window.positions for window in windows)
    if not positions:
        return Quality(0, None, None, None, None, None, greedy, note)
    nll = sum(window.nll for window in windows) / positions
    reference = sum(window.reference_nll for window in windows) / positions
    error = sum(window.squared_error for window in windows) / sum(window.squared_reference for window in windows)
    return Quality(
        positions=positions,
        perplexity=math.exp(nll),
        perplexity_ratio=math.exp(nll - reference),
        top1_agreement=sum(window.same_top1 for window in windows) / positions,
        logit_error=math.sqrt(error),
        kl=sum(window.kl for window in windows) / positions,
        greedy_agreement=greedy,
        note=note,
    )


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max(1, keepdims=True)
    values -= np.log(np.exp(values).sum(1, keepdims=True))
    return values
