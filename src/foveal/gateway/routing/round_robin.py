"""Each backend in turn."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView

__all__ = ["RoundRobin"]


class RoundRobin:
    """By id after the one chosen last, so that turns survive backends that come, go or are full."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        if not backends:
            return None
        last = self._last.get(request.model, "")
        first = min(backends, key=lambda load: load.spec.id)
        later = [load for load in backends if load.spec.id > last]
        chosen = min(later, key=lambda load: load.spec.id) if later else first
        self._last[request.model] = chosen.spec.id
        return chosen
