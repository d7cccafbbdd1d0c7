"""A step while it is being planned."""

from __future__ import annotations

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
    rows: list[ScheduledRow] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    preempted: list[str] = field(default_factory=list)
    scheduled: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    """Waiting requests that cannot be admitted in this step because of their images."""
    images_wait: bool = False
    """An image did not fit in this step; others must not go ahead of it."""
    has_prefill: bool = False
    """A chunk of a prompt is scheduled."""

    def add_row(self, request: Request, end: int) -> None:
        start = request.num_computed_tokens
        num_samples = request.fanout if end == request.num_tokens else 0
        self.rows.append(ScheduledRow(request.request_id, start, end - start, num_samples))
        self.scheduled.add(request.request_id)
        self.tokens_left -= end - start
        self.has_prefill |= end - start > 1
