"""What one request's life is made of. A reload makes a new one; requests in flight keep theirs."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.clock import Clock
from foveal.core.in_flight import InFlight
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.pricing.pricer import Pricer
from foveal.gateway.queueing.dispatcher import Dispatcher
from foveal.gateway.request.remote_images import Budget, RemoteImages
from foveal.gateway.serving.attempts import Attempts
from foveal.gateway.tenancy.tenancy import Tenancy
from foveal.observability.exchange_observer import ExchangeObserver
from foveal.observability.gateway_metrics import GatewayMetrics

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    config: GatewayConfig
    clock: Clock
    tenancy: Tenancy
    images: RemoteImages
    budget: Budget
    """Of the bytes in flight."""
    pricing: Pricer
    pool: BackendPool
    dispatcher: Dispatcher
    attempts: Attempts
    in_flight: InFlight
    metrics: GatewayMetrics
    observer: ExchangeObserver
