"""Perplexity over a long text, token-weighted, with overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["TextWindow", "perplexity", "text_windows"]


@dataclass(frozen=True, slots=True)
class TextWindow:
    """Tokens [start, end) are the input of one forward pass; of them [scored, end) are scored."""

    start: int
    scored: int
    end: int

    @property
    def num_scored(self) -> int:
        return self.end - self.scored


def text_windows(num_tokens: int, window: int, stride: int) -> list[TextWindow]:
    """Cover a text so that each token but the first is scored exactly once.

    After the first window each token has at least `window - stride` tokens before it, so a smaller stride costs more and
    measures closer to the unlimited context. Raises ValueError for sizes that cannot work.
    """
    if window < 2 or not 1 <= stride < window:
        raise ValueError(f"window is {window} and stride {stride}; window must be at least 2 and above the stride")
    if num_tokens < 2:
        raise ValueError(f"the text has {num_tokens} tokens; at least 2 are needed to score one")
    first_end = min(window, num_tokens)
    windows = [TextWindow(0, 1, first_end)]
    done = first_end
    while done < num_tokens:
        end = min(done + stride, num_tokens)
        windows.append(TextWindow(max(0, end - window), done, end))
        done = end
    return windows


def perplexity(nll: npt.ArrayLike, tokens: Sequence[int] | npt.ArrayLike) -> float:
    """exp(sum of negative log-likelihoods in nats / number of tokens); windows weigh as much as they have tokens.

    Infinite where the exponential leaves float64: above 709 nats per token, which only a ruined model reaches.
    """
    total = int(np.sum(np.asarray(tokens)))
    if total <= 0:
        raise ValueError("no tokens were scored; perplexity needs at least one")
    try:
        return math.exp(float(np.sum(np.asarray(nll, dtype=np.float64))) / total)
    except OverflowError:
        return math.inf
