"""A step while it is being planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foveal.engine.scheduling.plan import BlockCopy, ScheduledRow
from foveal.engine.scheduling.request import Request

__all__ = ["StepDraft"]


@dataclass(slots=True)
class StepDraft:
    """What is left to spend and what is decided so far."""

    now_s: float
    tokens_left: int
    admits: bool
    """False once nobody else can be admitted in this step."""
    drafts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """request id -> tokens guessed to come next."""
    draft_tokens_left: int = 0
    rows: list[ScheduledRow] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)
    scheduled: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    """Waiting requests that cannot be admitted in this step because of their images."""
    held_sizes: frozenset[int] = frozenset()
    """Pictures of so many patches wait for others of their size."""
    images_wait: bool = False
    """An image did not fit in this step; others must not go ahead of it."""
    has_prefill: bool = False
    """A chunk of a prompt is scheduled."""

    def add_row(self, request: Request, start: int, end: int, num_samples: int, drafts: tuple[int, ...] = ()) -> None:
        """Compute committed tokens [start, end) and the drafts behind them."""
        count = end - start + len(drafts)
        self.rows.append(ScheduledRow(request.request_id, start, count, num_samples, drafts))
        self.scheduled.add(request.request_id)
        self.tokens_left -= count
        self.draft_tokens_left -= len(drafts)
        if end - start > 1:
            self.has_prefill = True
