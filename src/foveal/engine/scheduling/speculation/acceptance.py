"""How likely the next drafted token is accepted, given that those before it were."""

from __future__ import annotations

__all__ = ["AcceptanceRate"]

_FIRST_GUESS = 0.6
_PRIOR_TESTS = 3.0
"""How many tested tokens the prior counts for."""


class AcceptanceRate:
    """Accepted over tested tokens, old ones fading.

    Only tested tokens count: what follows a rejected one says nothing. Then accepted / tested is the maximum likelihood
    estimate of a chance that is the same for every token (Leviathan et al. 2023, arXiv 2211.17192, sec. 3.1).
    """

    def __init__(self, prior: AcceptanceRate | None = None, *, decay: float = 0.9) -> None:
        """`prior`: where it starts, and stays as long as little is known; `decay`: what a round leaves of older ones."""
        self._prior = prior
        self._decay = decay
        self._tested = 0.0
        self._accepted = 0.0

    @property
    def value(self) -> float:
        """In (0, 1)."""
        prior = _FIRST_GUESS if self._prior is None else self._prior.value
        return (self._accepted + _PRIOR_TESTS * prior) / (self._tested + _PRIOR_TESTS)

    def observe(self, drafted: int, accepted: int) -> None:
        """One round: the first `accepted` of `drafted` tokens were right, the next one, if any, was wrong."""
        tested = accepted + (accepted < drafted)
        self._tested = self._decay * self._tested + tested
        self._accepted = self._decay * self._accepted + accepted
        if self._prior is not None:
            self._prior.observe(drafted, accepted)
