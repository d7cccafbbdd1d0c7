"""Traffic between versions of a model by weight: the seam for releases and experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView
from foveal.gateway.routing.policy import RoutingPolicy
from foveal.gateway.routing.rendezvous import key_of

__all__ = ["VersionSplit"]

MAX_DEBT = 8.0
"""Requests that a version without room may be behind its share; what is beyond is forgotten."""


class VersionSplit:
    """Chooses a version by `BackendLoad.version_weight`, then a backend of it by the inner policy.

    A session stays with its version as long as the weights stay (and mostly when they change: its version only ever
    changes towards the one whose weight grew). Requests without a session are dealt out exactly, not by chance: after
    n of them no version is further from its share than one request per version. A version with weight 0 gets nothing.
    """

    def __init__(self, inner: RoutingPolicy) -> None:
        self._inner = inner
        self._owed: dict[tuple[str, str], float] = {}

    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        if not backends:
            return None
        first = backends[0]
        for load in backends:
            if load.spec.version != first.spec.version:
                return self._split(request, price, backends)
        return self._inner.choose(request, price, backends) if first.version_weight > 0 else None

    def _split(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        weights = {load.spec.version: load.version_weight for load in backends if load.version_weight > 0}
        if not weights:
            return None
        session_id = request.session_id
        version = _of_session(session_id, weights) if session_id else self._deal(request.model, weights)
        chosen = [load for load in backends if load.spec.version == version]
        return self._inner.choose(request, price, chosen)

    def _deal(self, model: str, weights: Mapping[str, float]) -> str:
        """Error diffusion: everyone is owed its share of this request, the one that is owed most gets it."""
        total = sum(weights.values())
        for version, weight in weights.items():
            owed = self._owed.get((model, version), 0.0) + weight / total
            self._owed[model, version] = max(-MAX_DEBT, min(MAX_DEBT, owed))
        version = max(sorted(weights), key=lambda name: self._owed[model, name])
        self._owed[model, version] -= 1.0
        return version


def _of_session(session_id: str, weights: Mapping[str, float]) -> str:
    """Where a point that belongs to the session falls on the line of weights, versions in order."""
    total = sum(weights.values())
    point = key_of(session_id) / 2**64 * total
    names = sorted(weights)
    for name in names:
        point -= weights[name]
        if point < 0:
            return name
    return names[-1]
