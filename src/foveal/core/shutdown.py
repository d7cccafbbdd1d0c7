"""The end of a server: SIGTERM or SIGINT drains it, a second Ctrl-C cuts off what is still in flight."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

__all__ = ["Shutdown"]

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._forced = asyncio.Event()

    def request(self) -> None:
        """Begin to drain; a second call gives up on what is in flight. What the signals do."""
        if self.requested.is_set():
            self._forced.set()
        self.requested.set()

    async def end(self, drain: Awaitable[bool], cut_off: Callable[[], Awaitable[None]]) -> bool:
        """Drain, and cut off what `drain` says is left or what a second request gives up on. True if nothing was."""
        drained = asyncio.ensure_future(drain)
        forced = asyncio.create_task(self._forced.wait())
        await asyncio.wait({drained, forced}, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if drained.done() and drained.result():
            return True
        drained.cancel()
        await cut_off()
        return False

    @contextmanager
    def on_signals(self, others: Mapping[signal.Signals, Callable[[], None]] | None = None) -> Iterator[None]:
        """SIGTERM and SIGINT call `request`, and `others` what they say, until the block ends. Nothing outside the main
        thread, which alone may handle signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        with ExitStack() as handlers:
            for number in _END_SIGNALS:
                loop.add_signal_handler(number, self._on_end_signal, number)
                handlers.callback(loop.remove_signal_handler, number)
            for number, handler in (others or {}).items():
                loop.add_signal_handler(number, handler)
                handlers.callback(loop.remove_signal_handler, number)
            yield

    def _on_end_signal(self, number: signal.Signals) -> None:
        # Supervisors may repeat SIGTERM; only a person's second Ctrl-C means "now".
        if number is signal.SIGINT or not self.requested.is_set():
            self.request()
