"""Families whose pictures take a fixed number of tokens per view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from foveal.gateway.pricing.rules.rule import Options, VisionWork, integer, number

__all__ = ["FixedRule", "PanAndScanRule"]


@dataclass(frozen=True, slots=True)
class FixedRule:
    """Every picture takes the same: LLaVA 1.5, and anything an operator says so of."""

    num_tokens: int
    num_patches: int
    marker_tokens: int = 0

    @classmethod
    def llava(cls, options: Options) -> Self:
        side = integer(options, "image_size", 336) // integer(options, "patch_size", 14)
        extra = int(options.get("class_tokens", 1)) - int(options.get("drops_first", 1))
        return cls(side * side + extra, side * side)

    @classmethod
    def fixed(cls, options: Options) -> Self:
        tokens = integer(options, "tokens", 256)
        return cls(tokens, integer(options, "patches", tokens), int(options.get("marker_tokens", 0)))

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        return VisionWork(self.num_tokens, self.marker_tokens, self.num_patches)


@dataclass(frozen=True, slots=True)
class PanAndScanRule:
    """Gemma 3: one view, and crops of long pictures where the checkpoint pans and scans.

    Source: Gemma3ImageProcessor.pan_and_scan.
    """

    tokens_per_view: int
    patches_per_view: int
    max_crops: int
    """0: never."""
    min_crop_size: int
    min_ratio: float

    @classmethod
    def gemma3(cls, options: Options) -> Self:
        side = integer(options, "image_size", 896) // integer(options, "patch_size", 14)
        return cls(
            integer(options, "tokens_per_view", 256),
            side * side,
            integer(options, "max_crops", 4) if options.get("pan_and_scan") else 0,
            integer(options, "min_crop_size", 256),
            number(options, "min_ratio", 1.2),
        )

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        crops = 0 if single_view or not self.max_crops else self._crops(max(width, height), min(width, height))
        views = 1 + crops
        # "\n\n", begin, end, "\n\n" around each view, and a sentence where there are crops.
        return VisionWork(self.tokens_per_view * views, 4 * views + (16 if crops else 0), self.patches_per_view * views)

    def _crops(self, long: int, short: int) -> int:
        if long / short < self.min_ratio:
            return 0
        wanted = min(math.floor(long / self.min_crop_size), math.floor(long / short + 0.5))
        count = min(self.max_crops, max(2, wanted))
        return 0 if min(math.ceil(long / count), short) < self.min_crop_size else count
