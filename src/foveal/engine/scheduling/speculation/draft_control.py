"""What is known about one proposer's drafts for one request, and what follows for the next one."""

from __future__ import annotations

from foveal.engine.scheduling.speculation.acceptance import AcceptanceRate
from foveal.engine.scheduling.speculation.draft_length import DraftLength

__all__ = ["DraftControl"]

FIRST_TRIAL_AFTER = 16
LAST_TRIAL_AFTER = 128
TRIAL_TOKENS = 2


class DraftControl:
    """Length and acceptance; while drafts are off, when to try again: after 16 offers, then 32, 64, 128."""

    def __init__(self, most: int, prior: AcceptanceRate) -> None:
        """`most` tokens a round; `prior` is the acceptance over all requests, which rounds of this one update."""
        self._length = DraftLength(most)
        self._rate = AcceptanceRate(prior)
        self._declined = 0
        self._patience = FIRST_TRIAL_AFTER

    @property
    def tokens(self) -> int:
        """How many to ask for."""
        return self._length.tokens

    @property
    def rate(self) -> float:
        return self._rate.value

    @property
    def trial(self) -> int:
        """Tokens to verify although they may not pay; usually 0."""
        return min(TRIAL_TOKENS, self.tokens) if self._declined >= self._patience else 0

    def decline(self) -> None:
        """Drafts were on offer and were not worth verifying."""
        self._declined += 1

    def observe(self, drafted: int, accepted: int) -> None:
        """A round: the first `accepted` of `drafted` tokens were right."""
        self._rate.observe(drafted, accepted)
        self._length.observe(drafted, accepted)
        was_trial = self._declined >= self._patience
        self._declined = 0
        if accepted == drafted:
            self._patience = FIRST_TRIAL_AFTER
        elif was_trial:
            self._patience = min(LAST_TRIAL_AFTER, 2 * self._patience)
