"""Runs a gateway until a signal: SIGTERM and SIGINT drain, SIGHUP reloads."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import nullcontext

from foveal.core.collector import calm_collector
from foveal.core.errors import ConfigurationError
from foveal.core.shutdown import Shutdown
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.serving.gateway import Gateway
from foveal.observability.logs import get_logger

__all__ = ["GatewayRunner", "run_gateway"]

_log = get_logger("foveal.gateway")


async def run_gateway(load: Callable[[], GatewayConfig], on_started: Callable[[str], None] | None = None) -> int:
    """Serve until a signal; returns the exit status: 0 if every request finished, 1 if the grace period cut some off.

    `on_started` is called with the base URL once the port is open. Raises ConfigurationError.
    """

    def started(url: str) -> None:
        calm_collector()
        if on_started is not None:
            on_started(url)

    return await GatewayRunner(load).run(started)


class GatewayRunner:
    """`run_gateway` in steps, for tests and for embedding."""

    def __init__(self, load: Callable[[], GatewayConfig]) -> None:
        self.gateway = Gateway(load)
        self._shutdown = Shutdown()
        self._reloads: set[asyncio.Task[None]] = set()

    async def run(self, on_started: Callable[[str], None] | None = None, *, handle_signals: bool = True) -> int:
        gateway = self.gateway
        signals = self._shutdown.on_signals({signal.SIGHUP: self.request_reload})
        try:
            with signals if handle_signals else nullcontext():
                url = await gateway.start()
                _log.info("listening", url=url)
                if on_started is not None:
                    on_started(url)
                await self._shutdown.requested.wait()
                clean = await self._shutdown.end(gateway.drain(), gateway.cut_off)
                _log.info("drained", clean=clean)
                return 0 if clean else 1
        finally:
            await gateway.close()

    def request_stop(self) -> None:
        """Begin to drain; a second call gives up on what is in flight. What the signals do."""
        self._shutdown.request()

    def request_reload(self) -> None:
        """What SIGHUP does. A configuration with mistakes is logged and changes nothing."""
        task = asyncio.get_running_loop().create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            await self.gateway.reload()
        except ConfigurationError as error:
            _log.error("the configuration was not reloaded", error=str(error))
