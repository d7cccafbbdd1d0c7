"""What to give up before memory runs out (mission row E12). Pure: a reading in, a decision out.

below 0.75   give back one thing that was taken, the last one first
0.75 - 0.85  leave everything as it is
from 0.85    take one more: half of the feature cache, down to nothing; the prefix cache; a fifth of the sequences
from 0.95    all of it at once, and refuse new requests until it is below 0.85 again
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from foveal.engine.memory.memory_reading import MemoryReading

__all__ = ["ACTIONS", "Action", "Decision", "MemoryGuard"]

Action = Literal[
    "shrink_features", "drop_prefixes", "fewer_sequences", "refuse", "accept", "more_sequences", "grow_features"
]
ACTIONS: tuple[Action, ...] = (
    "shrink_features",
    "drop_prefixes",
    "fewer_sequences",
    "refuse",
    "accept",
    "more_sequences",
    "grow_features",
)

CRITICAL = 0.95
HIGH = 0.85
LOW = 0.75
SEQUENCES = 0.8
"""What is left of the running sequences after one step back."""

SMALLEST_FEATURES = 1 / 8
"""A feature cache smaller than this share is switched off."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What should hold from now on."""

    feature_share: float = 1.0
    """Of the feature cache's configured bytes."""
    max_num_seqs: int = 1
    refuses: bool = False
    drop_prefixes: bool = False
    """Now, once."""
    preempts: bool = False
    """Sequences above `max_num_seqs` give way at once."""
    actions: tuple[Action, ...] = ()
    """What changed."""


class MemoryGuard:
    """Call `decide` now and then; each call goes one step."""

    def __init__(self, max_num_seqs: int) -> None:
        self._most = max_num_seqs
        self._state = Decision(max_num_seqs=max_num_seqs)

    @property
    def state(self) -> Decision:
        return self._state

    def decide(self, reading: MemoryReading, *, num_running: int, has_prefixes: bool) -> Decision:
        """`has_prefixes`: there are cached blocks to drop."""
        pressure = reading.pressure
        held = replace(self._state, drop_prefixes=False, preempts=False, actions=())
        if pressure >= CRITICAL:
            self._state = self._everything(held, num_running, has_prefixes)
        elif pressure >= HIGH:
            self._state = self._one_more(held, num_running, has_prefixes)
        elif held.refuses:
            self._state = replace(held, refuses=False, actions=("accept",))
        elif pressure < LOW:
            self._state = self._one_less(held)
        else:
            self._state = held
        return self._state

    def _everything(self, held: Decision, num_running: int, has_prefixes: bool) -> Decision:
        actions: list[Action] = []
        if held.feature_share > 0.0:
            actions.append("shrink_features")
        if has_prefixes:
            actions.append("drop_prefixes")
        seats = self._fewer(held, num_running)
        if seats < held.max_num_seqs:
            actions.append("fewer_sequences")
        if not held.refuses:
            actions.append("refuse")
        return Decision(0.0, seats, True, has_prefixes, True, tuple(actions))

    def _one_more(self, held: Decision, num_running: int, has_prefixes: bool) -> Decision:
        if held.feature_share > 0.0:
            half = held.feature_share / 2
            share = half if half >= SMALLEST_FEATURES else 0.0
            return replace(held, feature_share=share, actions=("shrink_features",))
        if has_prefixes:
            return replace(held, drop_prefixes=True, actions=("drop_prefixes",))
        seats = self._fewer(held, num_running)
        if seats < held.max_num_seqs:
            return replace(held, max_num_seqs=seats, actions=("fewer_sequences",))
        return held

    def _one_less(self, held: Decision) -> Decision:
        if held.max_num_seqs < self._most:
            seats = min(self._most, max(held.max_num_seqs + 1, int(held.max_num_seqs / SEQUENCES)))
            return replace(held, max_num_seqs=seats, actions=("more_sequences",))
        if held.feature_share < 1.0:
            share = min(1.0, 2 * held.feature_share) if held.feature_share else SMALLEST_FEATURES
            return replace(held, feature_share=share, actions=("grow_features",))
        return held

    def _fewer(self, held: Decision, num_running: int) -> int:
        """A fifth less than what runs: seats that are empty save nothing."""
        return max(1, min(held.max_num_seqs, int(SEQUENCES * min(held.max_num_seqs, max(1, num_running)))))
