"""What one engine step does, as ids and integers. The scheduler writes it, the runner executes it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BlockCopy", "EncodeItem", "ScheduledRow", "StepPlan"]


@dataclass(frozen=True, slots=True)
class ScheduledRow:
    """Compute positions [start, start + num_tokens) of one request in this step."""

    request_id: str
    start: int
    num_tokens: int
    num_samples: int
    """Tokens to sample from the last position's logits: 0 in the middle of a prompt, n when an n-choice prompt
    completes, else 1. With drafts up to 1 + len(draft_token_ids) come out."""
    draft_token_ids: tuple[int, ...] = ()
    """Guessed tokens at the last positions of the row, behind the one committed token: to be verified."""

    @property
    def end(self) -> int:
        return self.start + self.num_tokens


@dataclass(frozen=True, slots=True)
class EncodeItem:
    """Run the vision encoder on one image before the decoder runs. Appears once per content hash."""

    request_id: str
    image_index: int
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy-on-write: copy KV block `source` to `target` in all layers before the decoder writes."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Rows are ordered; flattened tokens follow row order. An empty plan has no rows."""

    rows: tuple[ScheduledRow, ...] = ()
    encode: tuple[EncodeItem, ...] = ()
    copies: tuple[BlockCopy, ...] = ()
    evicted_features: tuple[bytes, ...] = ()
    """Content hashes whose feature tensors the runner drops before it encodes."""
    preempted: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(row.num_tokens for row in self.rows)
