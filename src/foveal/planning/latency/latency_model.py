"""How long a step takes, from what it has to do (mission row E16). Pure arithmetic; no torch, no clock.

    step   = fixed (weights read once, launch)  +  tokens, in segments  +  logits rows
             + KV positions read by decoding rows  +  (query, key) pairs of prompt chunks
    encode = per call + per image + per patch + per patch^2 inside an image

Time over tokens is not a line: few rows cost little because the weights have to be read anyway, and kernels change with
the number of rows. So it is a chain of segments that never falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from foveal.planning.latency.step_work import FEW_TOKENS, StepWork

__all__ = ["STEP_TERMS", "TOKEN_KNOTS", "VISION_TERMS", "LatencyModel", "step_features", "vision_features"]

TOKEN_KNOTS: Final = (4, 16, 64)
"""Where the segments over tokens meet."""

STEP_TERMS: Final = (
    "fixed",
    *(f"tokens {low + 1}-{high}" for low, high in zip((0, *TOKEN_KNOTS[:-1]), TOKEN_KNOTS, strict=True)),
    f"tokens {TOKEN_KNOTS[-1] + 1}-",
    "logits rows",
    "KV positions",
    "prefill pairs",
)
VISION_TERMS: Final = ("call", "image", "patch", "patch^2")


def step_features(work: StepWork) -> tuple[float, ...]:
    """What the coefficients of STEP_TERMS are multiplied with; images apart."""
    segments = []
    low = 0
    for high in TOKEN_KNOTS:
        segments.append(float(min(max(work.tokens - low, 0), high - low)))
        low = high
    segments.append(float(max(0, work.tokens - low)))
    return (
        1.0 if work.tokens else 0.0,
        *segments,
        float(work.samples),
        float(work.decode_kv),
        float(work.prefill_pairs),
    )


def vision_features(images: Sequence[int]) -> tuple[float, ...]:
    """What the coefficients of VISION_TERMS are multiplied with; images of one size share a call."""
    return (
        float(len(set(images))),
        float(len(images)),
        float(sum(images)),
        float(sum(patches * patches for patches in images)),
    )


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Seconds per unit of each term, none negative. Predicted times never fall when work grows."""

    step: tuple[float, ...]
    """By STEP_TERMS."""
    vision: tuple[float, ...] | None = None
    """By VISION_TERMS; None for a text model."""

    def __post_init__(self) -> None:
        """Raises ValueError for a wrong number of coefficients or a negative one."""
        for name, found, terms in (("step", self.step, STEP_TERMS), ("vision", self.vision, VISION_TERMS)):
            if found is not None and (len(found) != len(terms) or min(found) < 0):
                raise ValueError(f"{name} has coefficients {found}; {len(terms)} of at least 0 are needed")

    def decoder_s(self, work: StepWork) -> float:
        """The step without its images."""
        return sum(c * x for c, x in zip(self.step, step_features(work), strict=True))

    def encode_s(self, images: Sequence[int]) -> float:
        """Encoding images with so many patches each, those of one size together; 0.0 for a text model."""
        if self.vision is None or not images:
            return 0.0
        return sum(c * x for c, x in zip(self.vision, vision_features(images), strict=True))

    def step_s(self, work: StepWork) -> float:
        return self.decoder_s(work) + self.encode_s(work.images)

    def decode_s(self, num_rows: int, kv_tokens: int) -> float:
        """A step in which `num_rows` requests decode, which attend to `kv_tokens` positions in all."""
        return self.decoder_s(StepWork(tokens=num_rows, samples=num_rows, decode_kv=kv_tokens))

    def prefill_s(self, num_tokens: int, *, cached: int = 0, chunk: int = 512) -> float:
        """A prompt of `num_tokens` behind `cached` known ones, in chunks, alone on the machine."""
        total, start, end = 0.0, cached, cached + num_tokens
        while start < end:
            count = min(chunk, end - start)
            total += self.decoder_s(StepWork().with_row(start, count, int(start + count == end)))
            start += count
        return total

    def ttft_s(self, num_tokens: int, images: Sequence[int] = (), *, cached: int = 0, chunk: int = 512) -> float:
        """Time to the first token of a request alone on the machine; text and pixels are ready."""
        return self.encode_s(images) + self.prefill_s(num_tokens, cached=cached, chunk=chunk)

    def request_s(
        self, num_tokens: int, output_tokens: int, images: Sequence[int] = (), *, concurrency: int = 1
    ) -> float:
        """First token and all others, with `concurrency` requests of this kind decoding together."""
        kv = num_tokens + output_tokens // 2
        per_token = self.decode_s(concurrency, concurrency * kv)
        return self.ttft_s(num_tokens, images) + max(0, output_tokens - 1) * per_token

    def largest_chunk(self, work: StepWork, start: int, most: int, limit_s: float) -> int:
        """Most tokens, up to `most`, of a prompt from `start` that can join `work` within `limit_s`; 0 if not one can.

        A chunk that ends its prompt samples a row, so each is priced with one. Time grows with tokens on either side of
        FEW_TOKENS, where the attention kernel changes, so halving finds the longest on each.
        """
        fixed_s = self.encode_s(work.images)

        def fits(count: int) -> bool:
            return fixed_s + self.decoder_s(work.with_row(start, count, 1)) <= limit_s

        for low, high in ((FEW_TOKENS + 1, most), (1, min(FEW_TOKENS, most))):
            if high >= low and fits(low):
                while low < high:
                    middle = (low + high + 1) // 2
                    if fits(middle):
                        low = middle
                    else:
                        high = middle - 1
                return low
        return 0
