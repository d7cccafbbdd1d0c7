"""Pixtral and Mistral 3: native resolution up to a longest edge, a break token after each row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from foveal.gateway.pricing.rules.rule import Options, VisionWork, integer

__all__ = ["PixtralRule"]


@dataclass(frozen=True, slots=True)
class PixtralRule:
    """Source: PixtralImageProcessor and PixtralProcessor."""

    longest_edge: int
    patch_size: int
    merge_size: int

    @classmethod
    def pixtral(cls, options: Options) -> Self:
        return cls(
            integer(options, "longest_edge", 1024),
            integer(options, "patch_size", 16),
            integer(options, "merge_size", 1),
        )

    @classmethod
    def mistral3(cls, options: Options) -> Self:
        return cls(
            integer(options, "longest_edge", 1540),
            integer(options, "patch_size", 14),
            integer(options, "merge_size", 2),
        )

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        ratio = max(width, height) / self.longest_edge
        if ratio > 1:
            width, height = max(1, math.floor(width / ratio)), max(1, math.floor(height / ratio))
        unit = self.patch_size * self.merge_size
        rows, columns = (height - 1) // unit + 1, (width - 1) // unit + 1
        return VisionWork(rows * columns, rows, rows * columns * self.merge_size**2)
