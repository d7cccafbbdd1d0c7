"""The seam of routing: pure choices over snapshots, one contract test for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView

__all__ = ["RoutingPolicy"]


class RoutingPolicy(Protocol):
    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        """One of `backends`, all of which can take the request (right model, healthy, below their cap); None if empty.

        May keep a counter or a random state, reads no clock and does no I/O. Never mutates its arguments. The order
        of `backends` does not matter.
        """
        ...
