"""Qwen-VL and GLM-4V: native resolution, sides rounded to multiples of a merged patch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from foveal.gateway.pricing.rules.rule import Options, VisionWork, integer

__all__ = ["SmartResizeRule"]


@dataclass(frozen=True, slots=True)
class SmartResizeRule:
    """Source: `smart_resize` of transformers' Qwen2VLImageProcessor and Glm4vImageProcessor."""

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    frames: int = 1
    """GLM-4V counts a still picture as two frames against its pixel limits."""
    widens: bool = False
    """GLM-4V first widens pictures that are narrower than a merged patch."""

    @classmethod
    def qwen2_vl(cls, options: Options) -> Self:
        return cls(
            integer(options, "patch_size", 14),
            integer(options, "merge_size", 2),
            integer(options, "min_pixels", 56 * 56),
            integer(options, "max_pixels", 28 * 28 * 16384),
        )

    @classmethod
    def qwen3_vl(cls, options: Options) -> Self:
        return cls(
            integer(options, "patch_size", 16),
            integer(options, "merge_size", 2),
            integer(options, "min_pixels", 65_536),
            integer(options, "max_pixels", 16_777_216),
        )

    @classmethod
    def glm4v(cls, options: Options) -> Self:
        return cls(
            integer(options, "patch_size", 14),
            integer(options, "merge_size", 2),
            integer(options, "min_pixels", 112 * 112),
            integer(options, "max_pixels", 28 * 28 * 15000),
            frames=2,
            widens=True,
        )

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        factor = self.patch_size * self.merge_size
        if self.widens and min(width, height) < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        rows, columns = round(height / factor), round(width / factor)
        pixels = self.frames * rows * columns * factor * factor
        if pixels > self.max_pixels:
            beta = math.sqrt(self.frames * height * width / self.max_pixels)
            rows = max(1, math.floor(height / beta / factor))
            columns = max(1, math.floor(width / beta / factor))
        elif pixels < self.min_pixels:
            beta = math.sqrt(self.min_pixels / (self.frames * height * width))
            rows = math.ceil(height * beta / factor)
            columns = math.ceil(width * beta / factor)
        tokens = rows * columns
        return VisionWork(tokens, 2, tokens * self.merge_size**2)
