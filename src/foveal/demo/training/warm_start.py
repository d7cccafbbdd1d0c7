"""Trains the projector towards the dense targets, without the language model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from foveal.demo.training.dense_targets import WordBasis

__all__ = ["FeatureScale", "new_projector", "train_projector"]


@dataclass(frozen=True)
class FeatureScale:
    """Mean and deviation of each of the 1,152 features; the three layers differ in scale by orders of magnitude."""

    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def measure(cls, features: np.ndarray) -> FeatureScale:
        """From a sample: [n, 64, width] of any float type."""
        sample = torch.from_numpy(np.asarray(features)).float().flatten(0, 1)
        return cls(sample.mean(0), sample.std(0).clamp_min(1e-4))

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        return (features.float() - self.mean) / self.deviation


def new_projector(width: int, hidden: int) -> nn.Sequential:
    """Two layers, as LLaVA's: linear_1, GELU, linear_2."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))


def train_projector(
    features: np.ndarray,
    weights: np.ndarray,
    importance: np.ndarray,
    basis: WordBasis,
    scale: FeatureScale,
    minutes: float,
    report: Callable[[str], None],
    rate: float = 2e-3,
    batch: int = 48,
) -> nn.Sequential:
    """Weighted squared error to the mixture of word vectors, plus cross-entropy over the words where something is.

    features [n, 64, width], weights [n, 64, words], importance [n, 64].
    """
    vectors = basis.vectors
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    norm = vectors.norm(dim=1).mean()
    projector = new_projector(features.shape[-1], vectors.shape[1])
    optimiser = torch.optim.AdamW(projector.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.98), fused=True)
    order, cursor, step, began = torch.randperm(len(features)), 0, 0, time.monotonic()
    recent: list[tuple[float, float]] = []
    while (share := (time.monotonic() - began) / 60 / minutes) < 1:
        if cursor + batch > len(order):
            order, cursor = torch.randperm(len(features)), 0
        rows = order[cursor : cursor + batch].sort().values.numpy()
        cursor += batch
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        x = scale.apply(torch.from_numpy(features[rows]))
        y = torch.from_numpy(weights[rows]).float()
        heed = torch.from_numpy(importance[rows]).float()
        out = projector(x)
        error = ((out - y @ vectors) / norm).square().sum(-1)
        logits = 12.0 * (out / norm) @ unit.T
        target = y / y.sum(-1, keepdim=True).clamp_min(1e-6)
        naming = -(target * logits.log_softmax(-1)).sum(-1)
        loss = (heed * (error + 0.3 * naming)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        recent.append((float((heed * error).mean()), float((heed * naming).mean())))
        if step % 100 == 0:
            squared, named = (sum(values) / 100 for values in zip(*recent[-100:], strict=True))
            passes = step * batch / len(features)
            report(f"warm start: step {step}, {passes:.1f} passes, error {squared:.3f}, naming {named:.3f}")
    return projector
