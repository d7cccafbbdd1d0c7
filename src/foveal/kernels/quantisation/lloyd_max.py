"""Lloyd-Max: the codebook of least squared error for a distribution, the reference that NF4 is measured against.

Source: Max, "Quantizing for minimum distortion" (1960); Lloyd (1982). Two conditions are met in turn: edges lie half-way
between levels, and every level is the mean of the values in its cell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["gaussian_codebook", "gaussian_mse", "sample_codebook"]


def gaussian_codebook(levels: int, *, tolerance: float = 1e-12, max_rounds: int = 20_000) -> Tensor:
    """Ascending codebook [levels], float64, of least squared error for N(0, 1), from closed-form cell means."""
    codebook = _mid_quantiles(levels)
    for _ in range(max_rounds):
        mass, first, _ = _cell_moments(codebook)
        updated = first / mass
        if (updated - codebook).abs().max() < tolerance:
            return updated
        codebook = updated
    return codebook


def gaussian_mse(codebook: Tensor) -> float:
    """Mean squared error of rounding N(0, 1) to the nearest entry of an ascending codebook, in closed form."""
    mass, first, second = _cell_moments(codebook.double())
    return (second - 2 * codebook * first + codebook.square() * mass).sum().item()


def sample_codebook(samples: Tensor, levels: int, *, max_rounds: int = 500, tolerance: float = 1e-6) -> Tensor:
    """Ascending codebook [levels], float64, of least squared error for `samples` (any shape), from their quantiles on.

    A level whose cell is empty stays where it is.
    """
    ordered = samples.reshape(-1).double().sort().values
    sums = torch.nn.functional.pad(ordered.cumsum(0), (1, 0))
    positions = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels * (ordered.numel() - 1)
    codebook = ordered[positions.long()]
    for _ in range(max_rounds):
        inner = torch.searchsorted(ordered, (codebook[:-1] + codebook[1:]) / 2)
        edges = torch.cat([torch.zeros(1, dtype=torch.int64), inner, torch.tensor([ordered.numel()])])
        counts = edges.diff()
        means = sums[edges].diff() / counts.clamp_min(1)
        updated = torch.where(counts > 0, means, codebook)
        if (updated - codebook).abs().max() < tolerance:
            return updated
        codebook = updated
    return codebook


def _mid_quantiles(levels: int) -> Tensor:
    probabilities = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    return math.sqrt(2) * torch.erfinv(2 * probabilities - 1)


def _cell_moments(codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability, first and second moment of N(0, 1) in the cell of every level."""
    infinity = torch.tensor([math.inf], dtype=torch.float64)
    edges = torch.cat([-infinity, (codebook[:-1] + codebook[1:]) / 2, infinity])
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    cumulative = torch.special.ndtr(edges)
    mass = cumulative.diff()
    edge_density = torch.where(torch.isinf(edges), 0.0, edges * density)
    return mass, -density.diff(), mass - edge_density.diff()
