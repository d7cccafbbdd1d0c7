"""How often each token has occurred in one sequence, kept up to date as tokens arrive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foveal.engine.execution.sampling.vocabulary_ops import Floats, Ints

__all__ = ["TokenHistory"]


class TokenHistory:
    """Distinct tokens of prompt and output with their counts *in the output* (0 for tokens only in the prompt).

    Each update touches only the tokens that are new, so a step costs O(1) per sequence and not O(length).
    """

    def __init__(self, prompt_token_ids: Sequence[int]) -> None:
        self._ids = np.unique(np.asarray(prompt_token_ids, dtype=np.int64))
        self._counts = np.zeros(len(self._ids))
        self._size = len(self._ids)
        self._slot_of = {int(token_id): slot for slot, token_id in enumerate(self._ids)}
        self._num_seen = 0

    def update(self, output_token_ids: Sequence[int]) -> None:
        """Count output_token_ids[n:], where n of them were counted before. Raises ValueError if it became shorter."""
        if len(output_token_ids) < self._num_seen:
            raise ValueError(f"{self._num_seen} output tokens were counted, now there are {len(output_token_ids)}")
        for token_id in output_token_ids[self._num_seen :]:
            slot = self._slot_of.get(token_id)
            if slot is None:
                slot = self._append(token_id)
            self._counts[slot] += 1
        self._num_seen = len(output_token_ids)

    def copy(self) -> TokenHistory:
        """One that goes on by itself: what a draft would make of this sequence."""
        twin = TokenHistory(())
        twin._ids, twin._counts = self._ids.copy(), self._counts.copy()
        twin._size, twin._slot_of, twin._num_seen = self._size, dict(self._slot_of), self._num_seen
        return twin

    @property
    def ids(self) -> Ints:
        """Distinct token ids [m]. A view: use it before the next update."""
        return self._ids[: self._size]

    @property
    def output_counts(self) -> Floats:
        """Occurrences in the output [m], aligned with `ids`."""
        return self._counts[: self._size]

    def _append(self, token_id: int) -> int:
        slot = self._size
        if slot == len(self._ids):
            capacity = max(16, 2 * slot)
            self._ids = np.concatenate([self._ids, np.zeros(capacity - slot, dtype=np.int64)])
            self._counts = np.concatenate([self._counts, np.zeros(capacity - slot)])
        self._ids[slot] = token_id
        self._slot_of[token_id] = slot
        self._size += 1
        return slot
