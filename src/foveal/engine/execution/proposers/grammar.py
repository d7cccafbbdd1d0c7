"""What a grammar leaves no choice about: keys, quotes and brackets of a JSON schema."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.engine.execution.proposers.base import MOST_DRAFT_TOKENS, DraftJob

__all__ = ["GrammarProposer"]


class GrammarProposer:
    """Proposes the tokens of forced text. They are verified like any guess: the model may cut the text differently."""

    name = "grammar"
    is_free = True
    most_tokens: int | None = MOST_DRAFT_TOKENS

    def propose(self, jobs: Sequence[DraftJob]) -> list[list[int]]:
        """See Proposer."""
        return [self._propose(job) for job in jobs]

    def forget(self, request_id: str) -> None:
        """Nothing is kept: the guide belongs to the request."""

    @property
    def num_held(self) -> int:
        return 0

    @staticmethod
    def _propose(job: DraftJob) -> list[int]:
        if job.row.guide is None or job.prefix:
            return []
        return job.row.guide.forced_tokens()[: job.limit]
