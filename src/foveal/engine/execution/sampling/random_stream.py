"""Random numbers that depend on nothing but (seed, choice, output position, token id).

There is no generator state to advance, so preemption, recomputation and the company in the batch cannot change what a
request draws.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence

import numpy as np

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.vocabulary_ops import Floats, Ints

__all__ = ["DrawKey", "TokenNoise", "draw_key", "stream_seed"]

DrawKey = tuple[int, int]
"""(addend, odd multiplier), 32 bits each: what one draw mixes into the hash of every token id."""


def stream_seed(params: SamplingParams) -> int:
    """The seed of a request's random stream: its own, or a fresh random one. Call it once, at arrival."""
    return params.seed if params.seed is not None else secrets.randbits(63)


def draw_key(seed: int, choice: int, position: int) -> DrawKey:
    """The key of the draw for output token `position` of choice `choice`. `seed` is any signed 64-bit integer."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, choice, position), digest_size=8).digest()
    addend, multiplier = struct.unpack("<II", digest)
    return addend, multiplier | 1


class TokenNoise:
    """A uniform number, or standard Gumbel noise, for each pair of a draw and an id in [0, num_ids)."""

    def __init__(self, num_ids: int) -> None:
        # Scramble the ids once (splitmix64's finaliser, Steele et al. 2014); each draw mixes its key into the top half.
        mixed = np.arange(1, num_ids + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        self.hashed_ids = (mixed >> np.uint64(32)).astype(np.uint32)

    def uniform(self, keys: Sequence[DrawKey], counts: Ints, ids: Ints) -> Floats:
        """Numbers in (0, 1), odd multiples of 2**-33, float64 [m].

        `ids` [m] are grouped by draw: the first counts[0] belong to keys[0], the next counts[1] to keys[1], ...
        """
        table = np.array(keys, dtype=np.uint32).repeat(counts, axis=0)
        bits = (self.hashed_ids[ids] + table[:, 0]) * table[:, 1]
        # lowbias32 (C. Wellons, 2018)
        bits ^= bits >> np.uint32(16)
        bits *= np.uint32(0x7FEB352D)
        bits ^= bits >> np.uint32(15)
        bits *= np.uint32(0x846CA68B)
        bits ^= bits >> np.uint32(16)
        return (bits + 0.5) * 2.0**-32

    def gumbel(self, keys: Sequence[DrawKey], counts: Ints, ids: Ints) -> Floats:
        """-log(E) with E = -log(1 - u), float64 [m]; `counts` and `ids` as for `uniform`."""
        noise: Floats = -np.log(-np.log1p(-self.uniform(keys, counts, ids)))
        return noise
