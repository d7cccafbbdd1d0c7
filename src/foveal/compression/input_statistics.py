"""What a quantiser needs to know about the inputs of a linear: second moments and ranges, accumulated, never stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["InputStatistics"]


@dataclass
class InputStatistics:
    """Sums over the tokens that reach one linear (or several that share their input).

    Tokens to judge on (`held_out`) are summed apart. `weights` count image and text tokens differently in second
    moments and means, never in ranges: an outlier is one whatever its modality.
    """

    in_features: int
    rows_per_batch: int = 16
    """Inputs kept as they are from each batch, evenly spread: needed where inputs are rounded too."""
    dtype: torch.dtype = torch.float32
    """float64 for oracles; float32 matches it to about 1e-5 over 10^5 tokens."""
    gram: torch.Tensor = field(init=False)
    held_gram: torch.Tensor = field(init=False)
    total_weight: float = 0.0
    held_weight: float = 0.0
    abs_sum: torch.Tensor = field(init=False)
    minimum: torch.Tensor = field(init=False)
    maximum: torch.Tensor = field(init=False)
    rows: list[torch.Tensor] = field(default_factory=list)
    held_rows: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = self.in_features
        self.gram = torch.zeros(size, size, dtype=self.dtype)
        self.held_gram = torch.zeros(size, size, dtype=self.dtype)
        self.abs_sum = torch.zeros(size, dtype=self.dtype)
        self.minimum = torch.full((size,), torch.inf)
        self.maximum = torch.full((size,), -torch.inf)

    def add(self, inputs: torch.Tensor, weights: torch.Tensor | None = None, *, held_out: bool = False) -> None:
        """Inputs [..., in], weights [number of inputs] or None for 1 each."""
        rows = inputs.reshape(-1, self.in_features).to(self.dtype)
        weighted = rows if weights is None else rows * weights[:, None].to(self.dtype)
        total = float(len(rows)) if weights is None else float(weights.sum())
        kept = rows[torch.linspace(0, len(rows) - 1, min(self.rows_per_batch, len(rows))).long()].float()
        if held_out:
            self.held_gram.addmm_(weighted.T, rows)
            self.held_weight += total
            self.held_rows.append(kept)
            return
        self.gram.addmm_(weighted.T, rows)
        self.total_weight += total
        self.abs_sum += weighted.abs().sum(0)
        self.minimum = torch.minimum(self.minimum, rows.amin(0).float())
        self.maximum = torch.maximum(self.maximum, rows.amax(0).float())
        self.rows.append(kept)

    @property
    def hessian(self) -> torch.Tensor:
        """2/N X^T X [in, in]: of the squared output error with respect to a row of the weight."""
        return self.gram * (2 / max(self.total_weight, 1e-12))

    @property
    def held_hessian(self) -> torch.Tensor:
        """The same over the tokens held out; over all others where none were."""
        if self.held_weight == 0:
            return self.hessian
        return self.held_gram * (2 / self.held_weight)

    @property
    def mean_abs(self) -> torch.Tensor:
        """Mean magnitude per channel [in]."""
        return (self.abs_sum / max(self.total_weight, 1e-12)).float()

    @property
    def abs_max(self) -> torch.Tensor:
        """Largest magnitude per channel [in]."""
        return torch.maximum(self.maximum, -self.minimum)

    def sampled(self, *, held_out: bool) -> torch.Tensor:
        """The kept inputs [n, in]."""
        chosen = (self.held_rows or self.rows) if held_out else self.rows
        return torch.cat(chosen) if chosen else torch.zeros(0, self.in_features)

    def scaled(self, scale: torch.Tensor) -> InputStatistics:
        """What would have been found had every input been divided by `scale` [in], all positive."""
        result = InputStatistics(self.in_features, self.rows_per_batch, self.dtype)
        inverse = 1 / scale.to(self.dtype)
        outer = inverse[:, None] * inverse
        result.gram, result.held_gram = self.gram * outer, self.held_gram * outer
        result.total_weight, result.held_weight = self.total_weight, self.held_weight
        result.abs_sum = self.abs_sum * inverse
        result.minimum, result.maximum = self.minimum * inverse.float(), self.maximum * inverse.float()
        result.rows = [rows * inverse.float() for rows in self.rows]
        result.held_rows = [rows * inverse.float() for rows in self.held_rows]
        return result

    @staticmethod
    def mixed(image: InputStatistics, text: InputStatistics, image_weight: float) -> InputStatistics:
        """Statistics with image tokens counted `image_weight` times, from those of each modality alone."""
        result = InputStatistics(image.in_features, image.rows_per_batch, image.dtype)
        result.gram = image_weight * image.gram + text.gram
        result.held_gram = image_weight * image.held_gram + text.held_gram
        result.total_weight = image_weight * image.total_weight + text.total_weight
        result.held_weight = image_weight * image.held_weight + text.held_weight
        result.abs_sum = image_weight * image.abs_sum + text.abs_sum
        result.minimum, result.maximum = image.minimum, image.maximum
        result.rows, result.held_rows = image.rows, image.held_rows
        return result
