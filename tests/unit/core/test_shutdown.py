"""How a server ends: who waits, who is cut off, and which signals mean what."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from foveal.core.shutdown import Shutdown


class Server:
    """Drains when the test says so."""

    def __init__(self, clean: bool = True) -> None:
        self.idle = asyncio.Event()
        self.was_cut_off = False
        self._clean = clean

    async def drain(self) -> bool:
        await self.idle.wait()
        return self._clean

    async def cut_off(self) -> None:
        self.was_cut_off = True


async def test_a_drain_that_ends_in_time_cuts_nothing_off() -> None:
    server, shutdown = Server(), Shutdown()
    shutdown.request()
    server.idle.set()
    assert await shutdown.end(server.drain(), server.cut_off)
    assert not server.was_cut_off


async def test_what_the_grace_period_leaves_is_cut_off() -> None:
    server, shutdown = Server(clean=False), Shutdown()
    server.idle.set()
    assert not await shutdown.end(server.drain(), server.cut_off)
    assert server.was_cut_off


async def test_a_second_request_does_not_wait_for_the_drain() -> None:
    server, shutdown = Server(), Shutdown()
    shutdown.request()
    shutdown.request()
    assert not await shutdown.end(server.drain(), server.cut_off)
    assert server.was_cut_off


@pytest.mark.parametrize(
    ("signals", "cut_off"),
    [
        ([signal.SIGTERM, signal.SIGTERM], False),
        ([signal.SIGINT, signal.SIGINT], True),
        ([signal.SIGTERM, signal.SIGINT], True),
    ],
)
async def test_only_a_second_ctrl_c_means_now(signals: list[signal.Signals], cut_off: bool) -> None:
    server, shutdown = Server(), Shutdown()
    with shutdown.on_signals():
        for number in signals:
            os.kill(os.getpid(), number)
            await shutdown.requested.wait()
            await asyncio.sleep(0)  # the loop reads one signal per turn
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, server.idle.set)
        await shutdown.end(server.drain(), server.cut_off)
    assert server.was_cut_off is cut_off


async def test_other_signals_do_what_they_are_told_and_all_handlers_go_again() -> None:
    reloaded = asyncio.Event()
    with Shutdown().on_signals({signal.SIGHUP: reloaded.set}):
        os.kill(os.getpid(), signal.SIGHUP)
        await reloaded.wait()
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
