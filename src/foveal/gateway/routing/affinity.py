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

ALWAYS_FREE = 2
"""Requests in flight with which no backend is too loaded: with few requests the mean says little."""


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

    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        key = self._key(request)
        if key is None or len(backends) < 2:
            return self._without_key.choose(request, price, backends)
        slots = 0
        outstanding_ms = price.cost_ms
        for load in backends:
            slots += load.spec.max_in_flight
            outstanding_ms += load.outstanding_ms
        bound_ms = self._load_factor * outstanding_ms / slots
        home: BackendLoad | None = None
        home_rank = -1
        for load in backends:
            # Below the mean there is always one, so a home is always found; idle backends are all below it.
            if load.in_flight <= ALWAYS_FREE or load_of(load) <= bound_ms:
                rank_here = rank(key, load.spec.id)
                if rank_here > home_rank:
                    home, home_rank = load, rank_here
        return home or min(backends, key=lambda load: (load_of(load), load.spec.id))

    def _key(self, request: RequestView) -> int | None:
        for name in self._keys:
            if name == "session" and request.session_id:
                return key_of(request.session_id)
            if name == "image" and request.images and request.images[0].fingerprint:
                # The first picture: it stays the same over the turns of a conversation.
                return int.from_bytes(request.images[0].fingerprint, "little")
            if name == "prefix" and request.prefix_digest:
                return int.from_bytes(request.prefix_digest[:8], "little")
        return None
