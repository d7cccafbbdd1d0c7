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

    def add_row(self, request: Request, start: int, end: int, num_samples: int) -> None:
        count = end - start
        self.rows.append(ScheduledRow(request.request_id, start, count, num_samples))
        self.scheduled.add(request.request_id)
        self.tokens_left -= count
        if count > 1:
            self.has_prefill = True
