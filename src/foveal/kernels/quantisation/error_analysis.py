"""What quantisation does to a weight, measured beside what theory expects.

Theory (Bennett): within a cell of width s the error is uniform, so its mean square is s^2 / 12. For b bits, all 2^b cells
filled, that gives the signal-to-noise ratios

    full-scale uniform signal     6.02 b
    full-scale sine               6.02 b + 1.76
    Gaussian clipped at k sigma   6.02 b + 4.77 - 20 log10 k

Where they stop to hold:
- They count 2^b whole cells. A grid whose end codes stand at the ends of the range has 2^b - 1, which costs
  20 log10(2^b / (2^b - 1)): 0.56 dB at 4 bits, 0.03 dB at 8.
- A sine stays long at its peak, so with few bits it matters where in its cell the peak stands: at the cell's edge it
  costs 0.53 dB at 4 bits (0.14 dB at 8), at its code it gains 0.39 dB. The formula is the mean over that place.
- The Gaussian form leaves out what lies beyond k sigma; `clipping_power` is that part.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.kernels.quantisation import fp8, nf4
from foveal.kernels.quantisation.affine import QuantisedWeight

__all__ = [
    "LayerError",
    "clipping_power",
    "layer_error",
    "mse",
    "sqnr_db",
    "theory_gaussian_db",
    "theory_mse",
    "theory_sine_db",
    "theory_uniform_db",
    "worst_layers",
]

_DB_PER_BIT = 20 * math.log10(2)


@dataclass(frozen=True, slots=True)
class LayerError:
    """Error of one linear's weight."""

    name: str
    mse: float
    theory_mse: float
    sqnr_db: float
    """Power of the weight over power of the error."""

    @property
    def excess_db(self) -> float:
        """Measured error over what theory expects: near 0 for rounding to nearest, more where values were clipped or a
        method moved them on purpose."""
        if self.mse == 0 or self.theory_mse == 0:
            return 0.0
        return 10 * math.log10(self.mse / self.theory_mse)


def mse(reference: Tensor, approximation: Tensor) -> float:
    """Mean squared difference, summed in float64."""
    return _mean_square(reference - approximation)


def sqnr_db(reference: Tensor, approximation: Tensor) -> float:
    """10 log10 of signal power over error power; infinite where nothing differs."""
    return _ratio_db(_mean_square(reference), mse(reference, approximation))


def theory_mse(step: float) -> float:
    """Mean squared error of rounding to a grid of this step."""
    return step * step / 12


def theory_uniform_db(bits: int) -> float:
    return _DB_PER_BIT * bits


def theory_sine_db(bits: int) -> float:
    return _DB_PER_BIT * bits + 10 * math.log10(1.5)


def theory_gaussian_db(bits: int, k_sigma: float) -> float:
    """Gaussian on a grid over [-k sigma, k sigma], without the values beyond it."""
    return _DB_PER_BIT * bits + 10 * math.log10(3) - 20 * math.log10(k_sigma)


def clipping_power(k_sigma: float, bits: int) -> float:
    """Mean squared error of what N(0, 1) has beyond k sigma, where it gets the outermost of 2^b levels, k - step / 2.

    Adds to k^2 / (3 4^b), the error within: with Q and phi of the normal and h the half step, the two tails give
    2 [(1 + k^2) Q - k phi + 2 h (phi - k Q) + h^2 Q].
    """
    half_step = k_sigma / 2**bits
    tail = math.erfc(k_sigma / math.sqrt(2)) / 2
    density = math.exp(-k_sigma * k_sigma / 2) / math.sqrt(2 * math.pi)
    beyond, squared = density - k_sigma * tail, (1 + k_sigma * k_sigma) * tail - k_sigma * density
    return 2 * (squared + 2 * half_step * beyond + half_step * half_step * tail)


def layer_error(name: str, weight: Tensor, quantised: QuantisedWeight) -> LayerError:
    """Measure a quantised weight [out, in] against its original; theory takes every weight's own cell."""
    restored = quantised.dequantise()
    error = mse(weight, restored)
    signal = _mean_square(weight)
    return LayerError(name, error, _expected_mse(quantised), _ratio_db(signal, error))


def worst_layers(errors: Iterable[LayerError], count: int = 10) -> list[LayerError]:
    """The `count` layers of lowest SQNR, worst first."""
    return heapq.nsmallest(count, errors, key=lambda error: (error.sqnr_db, error.name))


def _expected_mse(quantised: QuantisedWeight) -> float:
    scheme, scale = quantised.scheme, quantised.scale.double()
    if scheme.kind == "int":
        return (scale.square() / 12).mean().item()
    cells = nf4.cell_mse(quantised.codes) if scheme.kind == "nf4" else fp8.cell_mse(quantised.codes)
    per_group = cells.reshape(*scale.shape, -1).mean(dim=-1)
    return (per_group * scale.square()).mean().item()


def _mean_square(values: Tensor) -> float:
    return (values.square().sum(dtype=torch.float64) / values.numel()).item()


def _ratio_db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
