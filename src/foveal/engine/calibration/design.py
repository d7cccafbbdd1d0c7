"""Which steps to measure. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from foveal.planning.latency.step_work import StepWork

__all__ = ["DesignLimits", "StepPoint", "decoder_design"]

Row = tuple[int, int, int]
"""start, number of tokens, logits rows"""

DECODE_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
DECODE_KV = (32, 256, 1024)
CHUNKS = (8, 16, 32, 64, 128, 256, 512)
CHUNK_STARTS = (0, 512, 1536)
HELD_OUT_POINTS = 16


@dataclass(frozen=True, slots=True)
class DesignLimits:
    """What the engine can run."""

    tokens: int
    """Of one step."""
    seqs: int
    context: int
    kv_tokens: int
    """KV positions in all."""


@dataclass(frozen=True, slots=True)
class StepPoint:
    name: str
    rows: tuple[Row, ...]
    held_out: bool = False

    @property
    def work(self) -> StepWork:
        return StepWork.of_rows(self.rows)

    def fits(self, limits: DesignLimits) -> bool:
        ends = [start + count for start, count, _ in self.rows]
        return (
            sum(count for _, count, _ in self.rows) <= limits.tokens
            and len(self.rows) <= limits.seqs
            and max(ends) < limits.context
            and sum(ends) <= limits.kv_tokens
        )


def decoder_design(limits: DesignLimits, *, seed: int = 0) -> list[StepPoint]:
    """Fitted points on a grid: decode by rows and context, chunks by length and start, both together. Held-out ones are
    drawn between them, log-uniformly, a third of each kind."""
    points = [
        *(_decode(rows, kv) for rows in DECODE_ROWS for kv in DECODE_KV),
        *(_mixed(0, 0, count, start) for count in CHUNKS for start in CHUNK_STARTS),
        *(_mixed(rows, 256, count, 128) for rows in (4, 16, 48) for count in (16, 64, 256)),
    ]
    fitting = [point for point in points if point.fits(limits)]
    return fitting + list(_held_out(limits, seed))


def _held_out(limits: DesignLimits, seed: int) -> Iterator[StepPoint]:
    rng = random.Random(seed)

    def between(low: int, high: int) -> int:
        return round(low * (max(high, low) / low) ** rng.random())

    found = 0
    for attempt in range(100 * HELD_OUT_POINTS):
        if found == HELD_OUT_POINTS:
            return
        kind = attempt % 3
        rows = between(1, min(limits.seqs, DECODE_ROWS[-1])) if kind != 1 else 0
        count = between(8, min(limits.tokens, CHUNKS[-1])) if kind else 0
        point = _mixed(
            rows, between(16, DECODE_KV[-1]), count, rng.choice((0, between(16, CHUNK_STARTS[-1]))), held_out=True
        )
        if point.fits(limits):
            found += 1
            yield point


def _decode(rows: int, kv: int) -> StepPoint:
    return _mixed(rows, kv, 0, 0)


def _mixed(rows: int, kv: int, count: int, start: int, *, held_out: bool = False) -> StepPoint:
    decode: list[Row] = [(kv, 1, 1)] * rows
    chunk: list[Row] = [(start, count, 1)] if count else []
    parts = ([f"decode {rows} x {kv}"] if rows else []) + ([f"chunk {count} at {start}"] if count else [])
    return StepPoint(" + ".join(parts), tuple(decode + chunk), held_out)
