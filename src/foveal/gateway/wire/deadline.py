"""A deadline that moves with every request but costs a timer only now and then."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

__all__ = ["Deadline"]


class Deadline:
    """Setting a later time is one assignment: the timer that is armed already fires early, sees it, and arms itself again."""

    __slots__ = ("_armed_s", "_at_s", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at_s = math.inf
        self._armed_s = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def after(self, seconds: float) -> None:
        at_s = self._at_s = self._loop.time() + seconds
        if at_s < self._armed_s:
            if self._handle is not None:
                self._handle.cancel()
            self._arm(at_s)

    def clear(self) -> None:
        self._at_s = math.inf

    def close(self) -> None:
        """For good: breaks the reference from the loop to us."""
        self._at_s = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, at_s: float) -> None:
        self._armed_s = at_s
        self._handle = self._loop.call_at(at_s, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._armed_s = math.inf
        if self._at_s == math.inf:
            return
        if self._loop.time() < self._at_s:
            self._arm(self._at_s)
            return
        self._at_s = math.inf
        self._expired()
