"""Requests that share a picture, a session or a prefix go to the backend that has it cached."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView
from foveal.gateway.routing.config import AffinityKey
from foveal.gateway.routing.least_loaded import LeastLoaded, load_of
from foveal.gateway.routing.rendezvous import key_of, rank

__all__ = ["Affinity"]


class Affinity:
    """Rendezvous hashing with bounded load: home first, but nobody gets far more than the mean.

    A backend may hold up to `load_factor` times the mean outstanding cost per slot (the new request included); beyond
    it the next in the key's order is asked, so a hot key spreads over few backends, always the same ones.
    Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018.
    """

    def __init__(self, keys: tuple[AffinityKey, ...], load_factor: float) -> None:
        self._keys = keys
        self._load_factor = load_factor
        self._without_key = LeastLoaded()
        self.needs_digests = "image" in keys or "prefix" in keys

    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        key = self._key(request)
        if key is None or len(backends) < 2:
            return self._without_key.choose(request, price, backends)
        slots = sum(load.spec.max_in_flight for load in backends)
        mean_ms = (sum(load.outstanding_ms for load in backends) + price.cost_ms) / slots
        # One request more than the mean is always allowed: else nothing could start on idle backends.
        bound_ms = self._load_factor * mean_ms
        ranked = sorted(backends, key=lambda load: rank(key, load.spec.id), reverse=True)
        for load in ranked:
            if load_of(load) <= bound_ms:
                return load
        return min(ranked, key=load_of)

    def _key(self, request: RequestView) -> int | None:
        for name in self._keys:
            if name == "session" and request.session_id:
                return key_of(request.session_id)
            if name == "image" and request.images and request.images[0].digest:
                # The first picture: it stays the same over the turns of a conversation.
                return int.from_bytes(request.images[0].digest[:8], "little")
            if name == "prefix" and request.prefix_digest:
                return int.from_bytes(request.prefix_digest[:8], "little")
        return None
