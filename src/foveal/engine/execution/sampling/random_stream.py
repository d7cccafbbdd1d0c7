"""Random numbers that depend on nothing but (seed, choice, output position, token id).

There is no generator state to advance, so preemption, recomputation and the company in the batch cannot change what a
request draws. Tokens are chosen with the Gumbel-max trick: argmax(logit + Gumbel noise of that token) follows
softmax(logits). We prefer it to one uniform through the inverse CDF because logits that differ by rounding (another
batch shape, another GEMM kernel) move *every* boundary of a CDF, but flip an argmax only if its two best are as close.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence

import torch

from foveal.core.sampling_params import SamplingParams

__all__ = ["DrawKey", "TokenNoise", "draw_key", "stream_seed"]

DrawKey = tuple[int, int]
"""(addend, odd multiplier), signed 32 bit: what one draw mixes into the hash of every token id."""


def stream_seed(params: SamplingParams) -> int:
    """The seed of a request's random stream: its own, or a fresh random one. Call it once, at arrival."""
    return params.seed if params.seed is not None else secrets.randbits(63)


def draw_key(seed: int, choice: int, position: int) -> DrawKey:
    """The key of the draw for output token `position` of choice `choice`. `seed` is any signed 64-bit integer."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, choice, position), digest_size=8).digest()
    addend, multiplier = struct.unpack("<ii", digest)
    return addend, multiplier | 1


class TokenNoise:
    """Standard Gumbel noise per (draw key, token id)."""

    def __init__(self, vocab_size: int, device: torch.device | str = "cpu") -> None:
        ids = torch.arange(vocab_size, dtype=torch.int64, device=device)
        # Scramble the ids once (splitmix64's finaliser, Steele et al. 2014); each draw mixes its key into the top half.
        mixed = (ids + 1) * -0x61C8864680B583EB
        mixed = (mixed ^ _shift_right(mixed, 30)) * -0x40A7B892E31B1A47
        mixed = (mixed ^ _shift_right(mixed, 27)) * -0x6B2FB644ECCEEE15
        self._hashed_ids = (mixed >> 32).to(torch.int32)

    def for_all(self, key: DrawKey) -> torch.Tensor:
        """Noise for the whole vocabulary, float32 [vocab].

        One draw per call, so the shape never varies: vectorised kernels treat the tail of an array differently in the
        last bit, which must not depend on how many rows a batch has.
        """
        bits = (self._hashed_ids + key[0]).mul_(key[1])
        return _gumbel_(_mix_(bits).to(torch.float32))

    def for_tokens(self, keys: Sequence[DrawKey], draws: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Noise for pairs: draw `draws[i]` (an index into keys) and token `token_ids[i]`, int64 [m]; float64 [m].

        Same bits as `for_all`; in double precision, where shape-dependent rounding of the logarithm is 2**-52.
        """
        key_table = torch.tensor(keys, dtype=torch.int32, device=token_ids.device)
        bits = (self._hashed_ids[token_ids] + key_table[draws, 0]).mul_(key_table[draws, 1])
        return _gumbel_(_mix_(bits).to(torch.float64))


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift of int64; torch's own is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_(x: torch.Tensor) -> torch.Tensor:
    """lowbias32 (C. Wellons, 2018) without its last step, which only improves low bits; in place. Returns 31 bits."""
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= 0x846CA68B - (1 << 32)
    x >>= 1
    return x.bitwise_and_(0x7FFFFFFF)


def _gumbel_(bits: torch.Tensor) -> torch.Tensor:
    """Floats holding integers in [0, 2**31) -> standard Gumbel noise, in place.

    -log(E) with E = -log1p(-u): precise for u near 0, where the winners are. The clamp keeps u below 1 after rounding.
    """
    u = bits.add_(0.5).mul_(2.0**-31).clamp_(max=1.0 - 2.0**-24)
    return u.neg_().log1p_().neg_().log_().neg_()
