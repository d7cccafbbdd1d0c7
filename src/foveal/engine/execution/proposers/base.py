"""The seam between speculative decoding and where guesses come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from foveal.engine.execution.sampling.row import SamplingRow
from foveal.engine.scheduling.request import Request

__all__ = ["MOST_DRAFT_TOKENS", "DraftJob", "Proposer"]

MOST_DRAFT_TOKENS = 16
"""Most guesses of all proposers together for one request in one step. Rows of at most one more token are computed as
single tokens are, bit by bit (kFewTokens of the native attention): speculation then changes no greedy answer."""


@dataclass(frozen=True, slots=True)
class DraftJob:
    """Guess how one decoding request goes on."""

    request: Request
    row: SamplingRow
    """How its tokens are sampled; its guide stands behind the committed output. Not to be changed."""
    limit: int
    """Most tokens to propose, at least 1."""
    prefix: tuple[int, ...] = ()
    """Tokens that another proposer has guessed already: go on behind them."""


class Proposer(Protocol):
    """Guesses tokens. A wrong guess costs time and never changes an answer. One contract test covers all."""

    name: str
    """One of `scheduling.speculation.statistics.PROPOSERS`."""
    is_free: bool
    """Guessing takes next to no time, so it is asked before it is known whether drafts pay."""
    most_tokens: int | None
    """Its own limit in place of the configured one, where its guesses are nearly certain."""

    def propose(self, jobs: Sequence[DraftJob]) -> list[list[int]]:
        """At most `limit` token ids for each job, possibly none; ordinary tokens of the target's vocabulary, never an
        image's placeholder. The caller drops what the job's guide forbids."""

    def forget(self, request_id: str) -> None:
        """The request ended. Unknown ids are ignored."""

    @property
    def num_held(self) -> int:
        """Requests for which something is kept: 0 when idle."""
