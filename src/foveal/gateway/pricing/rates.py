"""Work -> milliseconds of an otherwise idle backend: from a calibrated latency model, or learnt from answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from foveal.gateway.pricing.rules.rule import VisionWork
from foveal.planning.latency.latency_file import load_calibration
from foveal.planning.latency.latency_model import LatencyModel

__all__ = ["CalibratedRates", "CostRates", "LearntRates", "Timing"]

_LOW_QUANTILE = 0.25
# Before anything was seen, in ms per token: a mid-sized model on a mid-sized machine.
_PREFILL_MS, _DECODE_MS, _ENCODE_MS = 0.5, 20.0, 0.5
_FIRST_STEP, _LAST_STEP = 0.7, 0.03
_FEW_TOKENS = 32


class CostRates(Protocol):
    """Contract: no time is negative, and none falls when work grows."""

    def encode_ms(self, images: Sequence[VisionWork]) -> float: ...

    def prefill_ms(self, num_tokens: int) -> float: ...

    def decode_ms(self, prompt_tokens: int, output_tokens: int) -> float: ...


@dataclass(frozen=True, slots=True)
class CalibratedRates:
    """What `foveal calibrate` measured on the backend's machine."""

    model: LatencyModel

    @classmethod
    def of_coefficients(cls, step_s: Sequence[float], vision_s: Sequence[float] | None) -> Self:
        """Raises ValueError if they are not those of this version's latency model."""
        return cls(LatencyModel(tuple(step_s), None if vision_s is None else tuple(vision_s)))

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Raises ConfigurationError if it cannot be read."""
        calibration = load_calibration(path)
        assert calibration is not None  # a file is there or raises
        return cls(calibration.model)

    def encode_ms(self, images: Sequence[VisionWork]) -> float:
        return 1e3 * self.model.encode_s([image.num_patches for image in images])

    def prefill_ms(self, num_tokens: int) -> float:
        return 1e3 * self.model.prefill_s(num_tokens)

    def decode_ms(self, prompt_tokens: int, output_tokens: int) -> float:
        if output_tokens <= 0:
            return 0.0
        return 1e3 * output_tokens * self.model.decode_s(1, prompt_tokens + output_tokens // 2)


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one answer, as the gateway saw it."""

    first_byte_ms: float
    """From the request's last byte to the answer's first body byte."""
    total_ms: float
    """From the request's last byte to the answer's last."""
    is_stream: bool
    """Else the first byte comes when everything is done."""


class _LowQuantile:
    """Follows a low quantile of positive samples, in logarithms: waiting and batching only ever add time."""

    def __init__(self, initial: float, fixed: bool) -> None:
        self.value = initial
        self._fixed = fixed
        self._seen = 0

    def learn(self, sample: float) -> None:
        if self._fixed or not sample > 0 or not math.isfinite(sample):
            return
        self._seen += 1
        if self._seen == 1:
            self.value = sample
            return
        step = max(_LAST_STEP, _FIRST_STEP / self._seen)
        self.value *= math.exp(step * (_LOW_QUANTILE if sample > self.value else _LOW_QUANTILE - 1.0))


class LearntRates:
    """Milliseconds per token. Each is given, or learnt from the times of answers."""

    def __init__(
        self, encode_ms: float | None = None, prefill_ms: float | None = None, decode_ms: float | None = None
    ) -> None:
        self._encode = _LowQuantile(_ENCODE_MS if encode_ms is None else encode_ms, encode_ms is not None)
        self._prefill = _LowQuantile(_PREFILL_MS if prefill_ms is None else prefill_ms, prefill_ms is not None)
        self._decode = _LowQuantile(_DECODE_MS if decode_ms is None else decode_ms, decode_ms is not None)

    def encode_ms(self, images: Sequence[VisionWork]) -> float:
        return self._encode.value * sum(image.num_tokens for image in images)

    def prefill_ms(self, num_tokens: int) -> float:
        return self._prefill.value * num_tokens

    def decode_ms(self, prompt_tokens: int, output_tokens: int) -> float:
        return self._decode.value * output_tokens

    def learn(self, timing: Timing, prompt_tokens: int, cached_tokens: int, vision_tokens: int, steps: int) -> None:
        """`steps` are the output tokens of the longest choice, one after the other."""
        computed = prompt_tokens - cached_tokens
        if not timing.is_stream:
            rest_ms = timing.total_ms - self.prefill_ms(computed) - self._encode.value * vision_tokens
            if steps > 0:
                self._decode.learn(rest_ms / steps)
            return
        if steps > 1:
            self._decode.learn((timing.total_ms - timing.first_byte_ms) / (steps - 1))
        if computed < _FEW_TOKENS:
            return
        if vision_tokens == 0:
            self._prefill.learn(timing.first_byte_ms / computed)
        else:
            self._encode.learn((timing.first_byte_ms - self.prefill_ms(computed)) / vision_tokens)
