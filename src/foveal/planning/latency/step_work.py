"""What one engine step has to do, as the numbers that its time depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["FEW_TOKENS", "StepWork", "attended_pairs"]

FEW_TOKENS = 8
"""Kernels read the KV of rows with at most this many tokens once per token, as in decoding; of longer rows in tiles."""


def attended_pairs(start: int, num_tokens: int) -> int:
    """(query, key) pairs that causal attention scores for `num_tokens` queries behind `start` known positions."""
    return num_tokens * start + num_tokens * (num_tokens + 1) // 2


@dataclass(frozen=True, slots=True)
class StepWork:
    """Counts over all rows of a step."""

    tokens: int = 0
    """Rows of the decoder's matrix products: one per decoding request, n for a chunk of n."""
    samples: int = 0
    """Rows that need logits."""
    decode_kv: int = 0
    """(query, key) pairs of rows of few tokens, summed; for decoding rows that is the KV that is read."""
    prefill_pairs: int = 0
    """(query, key) pairs of longer rows, summed."""
    images: tuple[int, ...] = ()
    """Patches of each image that is encoded."""

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[int, int, int]], images: Iterable[int] = ()) -> StepWork:
        """Rows as (start, number of tokens, logits rows)."""
        tokens = samples = decode_kv = pairs = 0
        for start, count, sampled in rows:
            tokens += count
            samples += sampled
            if count <= FEW_TOKENS:
                decode_kv += attended_pairs(start, count)
            else:
                pairs += attended_pairs(start, count)
        return cls(tokens, samples, decode_kv, pairs, tuple(images))

    def with_row(self, start: int, num_tokens: int, samples: int = 0) -> StepWork:
        """With one more row."""
        pairs, few = attended_pairs(start, num_tokens), num_tokens <= FEW_TOKENS
        return replace(
            self,
            tokens=self.tokens + num_tokens,
            samples=self.samples + samples,
            decode_kv=self.decode_kv + (pairs if few else 0),
            prefill_pairs=self.prefill_pairs + (0 if few else pairs),
        )

    def with_images(self, patches: Iterable[int]) -> StepWork:
        return replace(self, images=(*self.images, *patches))
