"""Characters and messages -> prompt tokens, learnt from the usage of answers."""

from __future__ import annotations

__all__ = ["TextTokens"]

_FORGET = 0.995
_HUBER = 2.5
_CHARS = 1000.0
"""Characters are counted in thousands, so that the three features have like sizes."""
_PRIOR = (2.0, 4.0, 0.28 * _CHARS)
"""Tokens per request, per message and per thousand characters: an English text and a common chat template."""
_PRIOR_PRECISION = (1 / 64, 1 / 16, 1 / (0.2 * _CHARS) ** 2)
_LEAST = (0.0, 0.0, 0.01 * _CHARS)
_MOST = (10_000.0, 10_000.0, 6.0 * _CHARS)
_UNJUDGED = 8


class TextTokens:
    """tokens = a + b * messages + c * characters, by least squares over answers that are slowly forgotten.

    What keeps it sane: a prior that is never forgotten, so that directions in which requests do not differ stay where they are;
    residuals far beyond the usual one count less (Huber); coefficients have bounds.
    """

    def __init__(self) -> None:
        self._theta = _PRIOR
        # Sums over answers, weighted: products of features (upper triangle), and features times what the prior misses.
        self._aa = self._ab = self._ac = self._bb = self._bc = self._cc = 0.0
        self._ra = self._rb = self._rc = 0.0
        self._scale = 16.0
        self.seen = 0

    def estimate(self, num_messages: int, chars: int) -> int:
        """At least 1."""
        a, b, c = self._theta
        return max(1, round(a + b * num_messages + c * chars / _CHARS))

    def learn(self, num_messages: int, chars: int, tokens: int) -> None:
        m, x = float(num_messages), chars / _CHARS
        a, b, c = self._theta
        off = abs(tokens - (a + b * m + c * x))
        self.seen += 1
        # The first few settle the template and the language; judging them by a guessed scale would only slow that down.
        weight = min(1.0, _HUBER * self._scale / off) if self.seen > _UNJUDGED and off > 0 else 1.0
        self._scale = max(0.5, self._scale + 0.1 * (min(off, 4 * self._scale) - self._scale))
        # Noise of token counts grows with the text.
        weight /= 1.0 + 0.02 * max(tokens, 0)
        residual = weight * (tokens - (_PRIOR[0] + _PRIOR[1] * m + _PRIOR[2] * x))
        self._aa = _FORGET * self._aa + weight
        self._ab = _FORGET * self._ab + weight * m
        self._ac = _FORGET * self._ac + weight * x
        self._bb = _FORGET * self._bb + weight * m * m
        self._bc = _FORGET * self._bc + weight * m * x
        self._cc = _FORGET * self._cc + weight * x * x
        self._ra = _FORGET * self._ra + residual
        self._rb = _FORGET * self._rb + residual * m
        self._rc = _FORGET * self._rc + residual * x
        self._solve()

    def _solve(self) -> None:
        """(sums + prior precision) delta = right side, by Cholesky: positive definite whatever was seen."""
        l11 = (self._aa + _PRIOR_PRECISION[0]) ** 0.5
        l21, l31 = self._ab / l11, self._ac / l11
        l22 = max(self._bb + _PRIOR_PRECISION[1] - l21 * l21, 1e-9) ** 0.5
        l32 = (self._bc - l31 * l21) / l22
        l33 = max(self._cc + _PRIOR_PRECISION[2] - l31 * l31 - l32 * l32, 1e-9) ** 0.5
        y1 = self._ra / l11
        y2 = (self._rb - l21 * y1) / l22
        y3 = (self._rc - l31 * y1 - l32 * y2) / l33
        c = y3 / l33
        b = (y2 - l32 * c) / l22
        a = (y1 - l21 * b - l31 * c) / l11
        found = (_PRIOR[0] + a, _PRIOR[1] + b, _PRIOR[2] + c)
        bounded = [min(max(value, low), high) for value, low, high in zip(found, _LEAST, _MOST, strict=True)]
        self._theta = (bounded[0], bounded[1], bounded[2])
