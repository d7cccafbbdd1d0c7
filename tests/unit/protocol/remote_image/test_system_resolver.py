from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from foveal.protocol.remote_image.system_resolver import SystemResolver


class SlowNames:
    """A resolver that answers nothing until it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()

    def __call__(self, host: str, port: int, **kind: Any) -> list[Any]:
        self.asked.set()
        assert self.answers.wait(30)
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))
        return [entry, entry]


async def test_slow_names_of_clients_never_hold_up_the_names_of_backends() -> None:
    names = SlowNames()
    resolve = SystemResolver(num_threads=1, look_up=names)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    slow = [asyncio.create_task(resolve("slow.test", 80)) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        assert await loop.getaddrinfo("127.0.0.1", 80)
    names.answers.set()
    assert await asyncio.gather(*slow) == [["192.0.2.1"]] * 3


async def test_a_lookup_that_nobody_waits_for_any_more_counts_as_pending_until_it_ends() -> None:
    names = SlowNames()
    resolve = SystemResolver(num_threads=1, max_pending=1, look_up=names)
    left = asyncio.create_task(resolve("slow.test", 80))
    await asyncio.to_thread(names.asked.wait, 30)
    left.cancel()
    await asyncio.wait([left])
    with pytest.raises(OSError, match="too many"):
        await resolve("other.test", 80)
    names.answers.set()
    resolve._threads.shutdown()
    assert resolve._room.acquire(blocking=False)
