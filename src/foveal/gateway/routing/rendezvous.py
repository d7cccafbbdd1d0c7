"""Rendezvous hashing: every key has its own order of backends, which a change of backends hardly disturbs."""

from __future__ import annotations

from functools import lru_cache

from blake3 import blake3

__all__ = ["key_of", "rank"]

_MASK = (1 << 64) - 1


@lru_cache(maxsize=65536)
def key_of(text: str) -> int:
    """64 bits of a session's name."""
    return int.from_bytes(blake3(text.encode()).digest(8), "little")


@lru_cache(maxsize=4096)
def _seed(backend_id: str) -> int:
    return int.from_bytes(blake3(b"backend:" + backend_id.encode()).digest(8), "little")


def rank(key: int, backend_id: str) -> int:
    """How much `key` (64 bits) belongs to this backend: the highest rank is its home.

    The same on every gateway. Source: Thaler, Ravishankar, "Using name-based mappings to increase hit rates", 1998;
    the mixing is splitmix64's (Steele, Lea, Flood, 2014).
    """
    mixed = (key ^ _seed(backend_id)) & _MASK
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
    return mixed ^ (mixed >> 31)
