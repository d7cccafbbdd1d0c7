"""What is known about one proposer's drafts for one request, and what follows for the next one."""

from __future__ import annotations

from foveal.engine.scheduling.speculation.acceptance import AcceptanceRate
from foveal.engine.scheduling.speculation.draft_length import DraftLength
from foveal.engine.scheduling.speculation.trials import Trials

__all__ = ["DraftControl"]

FIRST_TRIAL_AFTER = 16
LAST_TRIAL_AFTER = 128
TRIAL_TOKENS = 2


class DraftControl:
    """Length, acceptance and, while drafts are off, when to try again."""

    def __init__(self, most: int, prior: AcceptanceRate, trials: Trials | None = None) -> None:
        """`most` tokens a round; `prior` is the acceptance over all requests, which rounds of this one update.

        `trials` may be shared by all requests; by default the request has its own.
        """
        self._length = DraftLength(most)
        self._rate = AcceptanceRate(prior)
        self._trials = trials or Trials(FIRST_TRIAL_AFTER, LAST_TRIAL_AFTER)

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
        return min(TRIAL_TOKENS, self.tokens) if self._trials.is_due else 0

    def decline(self) -> None:
        """Drafts were on offer and were not worth verifying."""
        self._trials.decline()

    def observe(self, drafted: int, accepted: int) -> None:
        """A round: the first `accepted` of `drafted` tokens were right."""
        self._rate.observe(drafted, accepted)
        self._length.observe(drafted, accepted)
        self._trials.observe(all_accepted=accepted == drafted)
