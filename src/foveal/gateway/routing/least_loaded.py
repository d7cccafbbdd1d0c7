"""The backend with the least work before it."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView

__all__ = ["LeastLoaded", "load_of"]

SMALLEST_SHARE = 0.05
"""A backend that may take one request at a time counts as this part of its size."""


def load_of(load: BackendLoad) -> float:
    """Outstanding cost per slot that it may use: a large backend may have more, one that returns less."""
    return load.outstanding_ms / (load.spec.max_in_flight * max(load.share, SMALLEST_SHARE))


class LeastLoaded:
    """Least outstanding cost per slot; among equals the one that was not chosen for longest."""

    def __init__(self) -> None:
        self._turn = 0
        self._chosen_at: dict[str, int] = {}

    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        if not backends:
            return None
        chosen = min(backends, key=self._rank)
        self._turn += 1
        self._chosen_at[chosen.spec.id] = self._turn
        return chosen

    def _rank(self, load: BackendLoad) -> tuple[float, int, str]:
        return load_of(load), self._chosen_at.get(load.spec.id, 0), load.spec.id
