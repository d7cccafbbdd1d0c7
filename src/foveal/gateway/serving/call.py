"""One admitted request on its way to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foveal.core.priority import Priority
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView
from foveal.gateway.serving.splicing import Splice
from foveal.gateway.tenancy.tenant import Tenant
from foveal.gateway.wire.upstream import UpstreamTimeouts

__all__ = ["Call"]


@dataclass(slots=True)
class Call:
    """`model` is whose backends may take it: the name asked for after aliases, smart routing and fallback."""

    id: str
    """The request's id, unique within this gateway."""
    request_id: bytes
    """X-Request-Id: the client's own, or `id`."""
    path: str
    headers: Mapping[bytes, bytes]
    body: bytearray
    view: RequestView
    tenant: Tenant
    priority: Priority
    price: Price
    model: str
    timeouts: UpstreamTimeouts
    arrival_s: float
    deadline_s: float
    """When the whole answer must be there."""
    splices: tuple[Splice, ...] = ()
    """All but the model's name."""
    traceparent: bytes | None = None
    waited_s: float = 0.0
    """Time spent in queues so far."""
