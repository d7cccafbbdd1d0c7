"""A real gateway on a free loopback port, in the event loop of the test, in front of fake backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.listen import ListenConfig
from foveal.gateway.config.models import BackendConfig, ModelConfig
from foveal.gateway.config.telemetry import LoggingConfig
from foveal.gateway.config.traffic import TimeoutConfig
from foveal.gateway.resilience.config import BreakerConfig, HealthConfig
from foveal.gateway.routing.config import RoutingConfig
from foveal.gateway.serving.gateway import Gateway
from foveal.gateway.serving.runner import GatewayRunner
from support.fake_backend import FakeBackend

__all__ = ["RunningGateway", "ask", "gateway_config", "post", "running_gateway", "until"]


@dataclass
class RunningGateway:
    url: str
    runner: GatewayRunner
    exit_status: asyncio.Task[int] = field(repr=False)

    @property
    def gateway(self) -> Gateway:
        return self.runner.gateway

    def count(self, outcome: str) -> float:
        """Requests that ended so, over all models, tenants and classes."""
        return _sum(self.gateway, "foveal_gateway_requests_total", outcome=outcome)

    @property
    def ended(self) -> float:
        return _sum(self.gateway, "foveal_gateway_requests_total")

    @property
    def received(self) -> float:
        return self.gateway.metrics.value("foveal_gateway_requests_received_total") or 0.0


def _sum(gateway: Gateway, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in gateway.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and all(sample.labels.get(label) == value for label, value in labels.items())
    )


def gateway_config(backends: Sequence[FakeBackend], **changes: Any) -> GatewayConfig:
    """One model, `vlm`, on all backends. Health checks are quick, so that failures show at once; time-outs never pass."""
    model_changes = changes.pop("model", {})
    routing = changes.pop("routing", RoutingConfig(policy="least_loaded"))
    slots = changes.pop("max_in_flight", 8)
    entries = tuple(BackendConfig(url=one.url, id=one.name, max_in_flight=slots) for one in backends)
    settings: dict[str, Any] = {
        "models": {"vlm": ModelConfig(name="vlm", backends=entries, routing=routing, **model_changes)},
        "listen": ListenConfig(port=0),
        "logging": LoggingConfig(access=False),
        "timeouts": TimeoutConfig(connect_s=5.0, first_byte_s=60.0, idle_s=60.0, total_s=60.0),
        "health": HealthConfig(interval_s=0.1, timeout_s=0.5, breaker=BreakerConfig(open_s=0.1)),
    }
    return GatewayConfig(**{**settings, **changes})


@asynccontextmanager
async def running_gateway(
    config: GatewayConfig | Callable[[], GatewayConfig], *, wait_ready: bool = True
) -> AsyncIterator[RunningGateway]:
    """Forces the end of what is still in flight when the block ends; checks that nothing is left."""
    runner = GatewayRunner(config if callable(config) else lambda: config)
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(runner.run(started.set_result, handle_signals=False))
    await asyncio.wait({started, running}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    gateway = RunningGateway(started.result(), runner, running)
    try:
        if wait_ready:
            pool = runner.gateway.pool
            await until(lambda: all(load.state.takes_requests for load in pool.loads(gateway.gateway.now_s())))
        yield gateway
    finally:
        runner.request_stop()
        runner.request_stop()
        await running
    assert runner.gateway.pool.num_in_flight == 0
    assert runner.gateway.in_flight.num_requests == 0
    assert gateway.received == gateway.ended


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "vlm", "messages": [{"role": "user", "content": "hi"}], **fields}


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def post(session: aiohttp.ClientSession, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
    """Status and JSON of a chat request."""
    async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json()
