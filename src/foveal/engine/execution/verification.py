"""Speculative decoding's other half: the target's own tokens beside the drafts.

Every position of a row with drafts is sampled exactly as plain decoding would sample it: same penalties, guide, filters
and the same random numbers, which depend on (seed, choice, position) only. A draft is accepted if it *is* that token.
For a draft that was guessed as a point mass this is rejection sampling (accept with the target's probability p, else draw
from p without it); and since the drawn token never depends on the draft, seeded output does not depend on which drafts
there were, on their number or on the load. Source: Daliri, Musco, Suresh, "Coupling without communication and
drafter-invariant speculative decoding", arXiv 2408.07978.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foveal.engine.execution.sampling.row import SampledToken, SamplingRow
from foveal.engine.scheduling.plan import ScheduledRow

__all__ = ["SampledPositions"]


@dataclass(frozen=True, slots=True)
class SampledPositions:
    """Which of a step's T tokens need logits, and how each is sampled."""

    rows: list[ScheduledRow]
    """The rows that sample, in plan order."""
    tokens: list[int]
    """[S] indices into the step's flattened tokens: one per row, with drafts 1 + drafts."""
    sampling: list[SamplingRow]
    """[S]"""

    @classmethod
    def of(
        cls, rows: Sequence[ScheduledRow], q_starts: Sequence[int], sampling: Mapping[str, SamplingRow]
    ) -> SampledPositions:
        """`q_starts` [len(rows) + 1]: where each row's tokens begin."""
        chosen, tokens, ahead = [], [], []
        for index, row in enumerate(rows):
            if row.num_samples:
                chosen.append(row)
                end = q_starts[index + 1]
                tokens += range(end - 1 - len(row.draft_token_ids), end)
                state = sampling[row.request_id]
                ahead += state.ahead(row.draft_token_ids) if row.draft_token_ids else (state,)
        return cls(chosen, tokens, ahead)

    def accept(self, sampled: Sequence[list[SampledToken]]) -> dict[str, list[SampledToken]]:
        """From what each position drew [S] to what each row yields.

        Without drafts a row yields one token per choice. With drafts: the accepted ones and the first token that is not
        a draft.
        """
        result = {}
        at = 0
        for row in self.rows:
            drafts = row.draft_token_ids
            if not drafts:
                result[row.request_id] = sampled[at]
            else:
                taken = [sampled[at][0]]
                while len(taken) <= len(drafts) and taken[-1].token_id == drafts[len(taken) - 1]:
                    taken.append(sampled[at + len(taken)][0])
                result[row.request_id] = taken
            at += 1 + len(drafts)
        return result
