"""Prompt lookup: what followed the last few tokens when they occurred before, in the prompt or in the output.

Source: Saxena, "Prompt lookup decoding" (2023); Yang et al. 2023, arXiv 2304.04487.
"""

from __future__ import annotations

from collections.abc import Sequence

from foveal.engine.execution.proposers.base import DraftJob
from foveal.engine.scheduling.request import Request

__all__ = ["NgramProposer"]

LENGTHS = (4, 3, 2)
"""Tokens to match, longest first. One token alone follows itself by chance too often."""

_IMAGE = -1
"""Stands for a token of an image: it can neither be matched nor proposed."""


class NgramProposer:
    """Keeps an index per request; a step costs it the new tokens only."""

    name = "ngram"
    is_free = True
    most_tokens: int | None = None

    def __init__(self) -> None:
        self._indices: dict[str, _Index] = {}

    def propose(self, jobs: Sequence[DraftJob]) -> list[list[int]]:
        """See Proposer."""
        return [self._propose(job) for job in jobs]

    def forget(self, request_id: str) -> None:
        self._indices.pop(request_id, None)

    @property
    def num_held(self) -> int:
        return len(self._indices)

    def _propose(self, job: DraftJob) -> list[int]:
        index = self._indices.get(job.request.request_id)
        if index is None:
            index = self._indices[job.request.request_id] = _Index(job.request)
        index.update(job.request)
        return index.look_up(job.prefix, job.limit)


class _Index:
    """The tokens of one request, and where each n-gram last occurred."""

    def __init__(self, request: Request) -> None:
        self._tokens = list(request.prompt_token_ids)
        for span in request.spans:
            self._tokens[span.offset : span.end] = [_IMAGE] * span.length
        self._followers: dict[tuple[int, ...], int] = {}
        """n-gram -> position behind its last occurrence that has something behind it."""
        self._num_indexed = 0

    def update(self, request: Request) -> None:
        """Take new output tokens in."""
        tokens = self._tokens
        tokens += request.output_token_ids[len(tokens) - request.num_prompt_tokens :]
        # The last token is not indexed yet: nothing follows it.
        for end in range(self._num_indexed + 1, len(tokens)):
            for length in LENGTHS:
                if length <= end:
                    gram = tuple(tokens[end - length : end])
                    if _IMAGE not in gram:
                        self._followers[gram] = end
        self._num_indexed = max(self._num_indexed, len(tokens) - 1)

    def look_up(self, prefix: tuple[int, ...], limit: int) -> list[int]:
        """Up to `limit` tokens behind the committed ones and `prefix`."""
        tail = [*self._tokens[-LENGTHS[0] :], *prefix]
        for length in LENGTHS:
            position = self._followers.get(tuple(tail[-length:]))
            if position is not None and length <= len(tail):
                return self._copy(position, prefix, limit)
        return []

    def _copy(self, position: int, prefix: tuple[int, ...], limit: int) -> list[int]:
        """What follows from `position` on; a repetition runs on into what is proposed."""
        tokens, found = self._tokens, [*prefix]
        while len(found) < len(prefix) + limit:
            token = tokens[position] if position < len(tokens) else found[position - len(tokens)]
            if token == _IMAGE:
                break
            found.append(token)
            position += 1
        return found[len(prefix) :]
