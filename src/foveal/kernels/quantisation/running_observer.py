"""Calibration of a static input grid: what was seen, in constant memory, then one scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation import integer_grid
from foveal.kernels.quantisation.observers import Observer
from foveal.kernels.quantisation.scheme import ActivationScheme

__all__ = ["RunningObserver"]

_BINS = 8192
"""Even, so that doubling the range merges bins in pairs and keeps the centre on an edge."""

_SMALLEST_REACH = 2.0**-40


class RunningObserver:
    """Sees batches of one linear's input and answers with a scale at the end.

    Keeps extremes, mean and variance (exact, float64) and a histogram over [-reach, reach], where `reach` is a power of
    two that doubles when a larger value arrives. The histogram resolves at least the 4096th part of the largest
    magnitude, a sixteenth of an 8-bit step.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._low = math.inf
        self._high = -math.inf
        self._reach = 0.0
        self._histogram = torch.zeros(_BINS, dtype=torch.float64)

    @property
    def count(self) -> int:
        """Values seen."""
        return self._count

    def observe(self, values: Tensor) -> None:
        """Add a batch of any shape. Raises ConfigurationError for values that are not finite."""
        flat = values.detach().reshape(-1).to(torch.float64)
        if not flat.numel():
            return
        low, high = (edge.item() for edge in torch.aminmax(flat))
        if not math.isfinite(high - low):
            raise ConfigurationError(
                "calibration saw NaN or infinity at the input of a linear. Run the model in float32, or check its weights."
            )
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._add_moments(flat)
        self._stretch(max(-low, high))
        bins = ((flat + self._reach) * (_BINS / (2 * self._reach))).long().clamp_(0, _BINS - 1)
        self._histogram += torch.bincount(bins.cpu(), minlength=_BINS)

    def scale_and_zero_point(
        self,
        scheme: ActivationScheme,
        observer: Observer = "minmax",
        *,
        k_sigma: float = 6.0,
        percentile: float = 99.99,
        smallest_shrink: float = 0.05,
        shrink_steps: int = 96,
    ) -> tuple[Tensor, Tensor | None]:
        """Scale float32 [] and zero point int32 [] (None when symmetric) of the static grid.

        `mse` keeps the range, from the full one down to `smallest_shrink` of it, whose expected squared error over the
        histogram is least. Raises ConfigurationError before anything was observed.
        """
        if not self._count:
            raise ConfigurationError("no calibration data reached this linear. Use samples that exercise it.")
        if observer == "mse":
            shrinks = torch.linspace(1, smallest_shrink, shrink_steps)
            return self._least_error(scheme, shrinks)
        low, high = self._range(observer, k_sigma, percentile)
        return integer_grid.scale_for_range(
            torch.tensor(low), torch.tensor(high), scheme.code_range, symmetric=scheme.symmetric
        )

    def _range(self, observer: Observer, k_sigma: float, percentile: float) -> tuple[float, float]:
        if observer == "minmax":
            return self._low, self._high
        if observer == "sigma":
            spread = k_sigma * math.sqrt(self._squares / self._count)
            return max(self._low, self._mean - spread), min(self._high, self._mean + spread)
        if observer == "percentile":
            if not 50 < percentile <= 100:
                raise ConfigurationError(f"percentile {percentile} is outside (50, 100]. Use 99.99.")
            return max(self._low, self._quantile(1 - percentile / 100)), min(
                self._high, self._quantile(percentile / 100)
            )
        raise ConfigurationError(f"observer {observer!r} is not known. Use one of minmax, sigma, percentile, mse.")

    def _quantile(self, fraction: float) -> float:
        """The outer edge of the bin in which the running count passes `fraction`, so that the range is not cut short."""
        target = fraction * self._count
        cumulative = torch.cumsum(self._histogram, 0)
        index = int(torch.searchsorted(cumulative, torch.tensor(target, dtype=torch.float64)))
        edge = index if fraction < 0.5 else index + 1
        return (min(edge, _BINS) / _BINS * 2 - 1) * self._reach

    def _least_error(self, scheme: ActivationScheme, shrinks: Tensor) -> tuple[Tensor, Tensor | None]:
        seen = self._histogram > 0
        centres = (((torch.arange(_BINS) + 0.5) / _BINS * 2 - 1) * self._reach)[seen].float()
        scale, zero_point = integer_grid.scale_for_range(
            self._low * shrinks[:, None], self._high * shrinks[:, None], scheme.code_range, symmetric=scheme.symmetric
        )
        codes = integer_grid.encode(centres[None], scale, zero_point, scheme.code_range)
        error = (integer_grid.decode(codes, scale, zero_point) - centres[None]).square()
        best = int((error.double() @ self._histogram[seen]).argmin())
        return scale[best, 0], None if zero_point is None else zero_point[best, 0]

    def _add_moments(self, flat: Tensor) -> None:
        """Chan's parallel update: exact whatever the batch sizes."""
        count, mean = flat.numel(), flat.mean().item()
        squares = (flat - mean).square().sum().item()
        total = self._count + count
        shift = mean - self._mean
        self._squares += squares + shift * shift * self._count * count / total
        self._mean += shift * count / total
        self._count = total

    def _stretch(self, magnitude: float) -> None:
        if self._reach == 0.0:
            self._reach = 2.0 ** math.ceil(math.log2(max(magnitude, _SMALLEST_REACH)))
        while self._reach < magnitude:
            merged = self._histogram.reshape(-1, 2).sum(dim=1)
            self._histogram = torch.nn.functional.pad(merged, (_BINS // 4, _BINS // 4))
            self._reach *= 2
