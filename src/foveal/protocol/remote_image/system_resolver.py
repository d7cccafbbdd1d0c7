"""Host names that clients chose, looked up where slow ones harm nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["SystemResolver"]


class SystemResolver:
    """The operating system's resolver. Implements `Resolve`.

    In threads of its own: the event loop's few look up the names of backends, which must never wait behind those of clients.
    """

    def __init__(
        self, num_threads: int = 8, max_pending: int = 256, look_up: Callable[..., Any] = socket.getaddrinfo
    ) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="image names")
        self._room = threading.Semaphore(max_pending)
        self._look_up = look_up

    async def __call__(self, host: str, port: int) -> list[str]:
        """Raises OSError for a name without an address, and when too many names are pending."""
        if not self._room.acquire(blocking=False):
            raise OSError("too many host names of image URLs are being looked up")
        lookup = self._threads.submit(self._look_up, host, port, type=socket.SOCK_STREAM)
        # Once the thread is through with it: a lookup cannot be broken off, and whoever asked may be gone by then.
        lookup.add_done_callback(lambda _: self._room.release())
        return list(dict.fromkeys(str(entry[4][0]) for entry in await asyncio.wrap_future(lookup)))
