"""Where the time of one request went, stage after stage: source of histograms, span events, the slow log, Server-Timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

__all__ = ["OWN_STAGES", "STAGES", "Stage", "Waterfall"]

Stage = Literal[
    "read",  # head to complete body: the client's upload
    "auth",
    "parse",
    "fetch",  # remote images
    "price",
    "limit",  # rate limits, quotas, bytes in flight
    "cache",  # looking up; for a follower, waiting for the leader's answer
    "queue",  # waiting for a backend with room
    "route",
    "retry",  # lost by attempts that failed before the first byte
    "backend",  # connecting and sending to the first byte of the answer's body
    "stream",  # first to last byte
    "finish",  # settling quotas, storing the answer
]

STAGES: tuple[Stage, ...] = get_args(Stage)

OWN_STAGES: frozenset[Stage] = frozenset({"auth", "parse", "price", "limit", "cache", "route", "finish"})
"""The gateway's own work: their sum is what it adds to a request."""

_SHOWN_MS = 0.01
"""Shorter stages are left out of Server-Timing: a header of zeros helps nobody."""


class Waterfall:
    """Each `mark` ends a stage that began where the one before ended, so stages never overlap and nothing is missed.

    Times are seconds of the clock that `now_s` reads. A stage may come several times (two attempts, two waits).
    """

    __slots__ = ("_now_s", "last_s", "spans", "start_s")

    def __init__(self, now_s: Callable[[], float], start_s: float | None = None) -> None:
        """`start_s` is when the head was read; now by default."""
        self._now_s = now_s
        self.start_s = self.last_s = now_s() if start_s is None else start_s
        """`last_s`: when the last stage ended."""
        self.spans: list[tuple[Stage, float, float]] = []
        """(stage, begin, end), in order, without gaps."""

    def mark(self, stage: Stage, at_s: float | None = None) -> float:
        """End `stage` now, or at `at_s`; returns when."""
        end_s = self._now_s() if at_s is None else at_s
        self.spans.append((stage, self.last_s, end_s))
        self.last_s = end_s
        return end_s

    def durations(self) -> dict[Stage, float]:
        """Stage -> seconds, summed over its occurrences, in order of first occurrence."""
        sums: dict[Stage, float] = {}
        for stage, begin_s, end_s in self.spans:
            sums[stage] = sums.get(stage, 0.0) + end_s - begin_s
        return sums

    @property
    def body_done_s(self) -> float:
        """When the body was complete: the end of `read`, or the start where there is none."""
        return next((end_s for stage, _, end_s in self.spans if stage == "read"), self.start_s)

    @property
    def first_byte_s(self) -> float | None:
        """When the first byte of the answer was there; None before."""
        return next((end_s for stage, _, end_s in reversed(self.spans) if stage == "backend"), None)

    def server_timing(self, backend: bytes | str = "") -> bytes:
        """The header's value: milliseconds by stage, `total` so far, and the backend's own stages as `backend-NAME`.

        `backend` is the Server-Timing that the backend sent. Source: W3C Server Timing.
        """
        # One pass and one encoding: this runs for every request. A stage that came twice is told twice, as the header allows.
        parts = [
            f"{stage};dur={ms:.2f}"
            for stage, begin_s, end_s in self.spans
            if (ms := 1000 * (end_s - begin_s)) >= _SHOWN_MS
        ]
        parts.append(f"total;dur={1000 * (self.last_s - self.start_s):.2f}")
        own = ", ".join(parts).encode()
        return own + _prefixed(backend.encode() if isinstance(backend, str) else backend) if backend else own

    def describe(self) -> str:
        """One line for people: `read 12.0 | queue 103.1 | backend 412.9 ms`, stages under 10 us left out."""
        shown = [(stage, 1000 * seconds) for stage, seconds in self.durations().items()]
        return " | ".join(f"{stage} {ms:.1f}" for stage, ms in shown if ms >= _SHOWN_MS) + " ms"


def _prefixed(header: bytes) -> bytes:
    names = [part.strip() for part in header.split(b",")]
    return b"".join(b", backend-" + name for name in names if name)
