"""Characters and messages -> prompt tokens, learnt from the usage of answers."""

from __future__ import annotations

__all__ = ["TextTokens"]

_FORGET = 0.995
_HUBER = 2.5
_INITIAL = (2.0, 4.0, 0.28)
"""Tokens per request, per message and per character: an English text and a common chat template."""
_UNCERTAINTY = (64.0, 16.0, 0.04)
_CHARS = 1000.0


class TextTokens:
    """tokens = a + b * messages + c * characters, by recursive least squares that forgets slowly.

    Robust: a residual far beyond the usual one counts less (Huber), so that one strange text does not move the estimate.
    """

    def __init__(self) -> None:
        a, b, c = _INITIAL
        # Characters are counted in thousands, so that the three features have like sizes.
        self._theta = [a, b, c * _CHARS]
        variances = (*_UNCERTAINTY[:2], _UNCERTAINTY[2] * _CHARS**2)
        self._covariance = [[variances[i] if i == j else 0.0 for j in range(3)] for i in range(3)]
        self._scale = 16.0
        self.seen = 0

    def estimate(self, num_messages: int, chars: int) -> int:
        """At least 1."""
        a, b, c = self._theta
        return max(1, round(a + b * num_messages + c * chars / _CHARS))

    def learn(self, num_messages: int, chars: int, tokens: int) -> None:
        features = (1.0, float(num_messages), chars / _CHARS)
        residual = tokens - sum(t * x for t, x in zip(self._theta, features, strict=True))
        self.seen += 1
        # The first few settle the template and the language; judging them by a guessed scale would only slow that down.
        weight = min(1.0, _HUBER * self._scale / abs(residual)) if self.seen > 8 and residual else 1.0
        # Noise of token counts grows with the text.
        noise = 1.0 + 0.02 * max(tokens, 0)
        p = self._covariance
        px = [sum(p[i][j] * features[j] for j in range(3)) for i in range(3)]
        gain = weight / (_FORGET * noise + weight * sum(features[i] * px[i] for i in range(3)))
        for i in range(3):
            self._theta[i] += gain * px[i] * residual
            for j in range(3):
                p[i][j] = min(1e9, (p[i][j] - gain * px[i] * px[j]) / _FORGET)
        self._theta[2] = max(self._theta[2], 0.01 * _CHARS)
        self._scale += 0.1 * (min(abs(residual), 4 * self._scale) - self._scale)
        self._scale = max(self._scale, 0.5)
