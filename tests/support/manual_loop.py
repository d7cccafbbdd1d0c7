"""An event loop whose timers fire when the test says so; everything else is the running loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["ManualLoop"]


class _Timer:
    def __init__(self, at_s: float, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.at_s, self.call, self.arguments = at_s, call, arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._now_s = 0.0
        self.timers: list[_Timer] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self._now_s

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any, **_: Any) -> _Timer:
        timer = _Timer(when, callback, arguments)
        self.timers.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any, **_: Any) -> _Timer:
        return self.call_at(self._now_s + delay, callback, *arguments)

    def advance(self, seconds: float) -> None:
        """Fires what falls due, in order."""
        end_s = self._now_s + seconds
        while due := [timer for timer in self.timers if timer.at_s <= end_s and not timer.cancelled]:
            timer = min(due, key=lambda timer: timer.at_s)
            self.timers.remove(timer)
            self._now_s = max(self._now_s, timer.at_s)
            timer.call(*timer.arguments)
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        self._now_s = end_s
