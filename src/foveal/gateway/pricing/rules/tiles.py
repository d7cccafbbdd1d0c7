"""Families that cut a picture into tiles of one size and add a global view: Idefics 3, SmolVLM, InternVL, Phi-4."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Self

from foveal.gateway.pricing.rules.rule import Options, VisionWork, integer, number

__all__ = ["ClosestGridRule", "HdTransformRule", "LongestEdgeTilesRule", "closest_grid"]

_IDEFICS_MAX_SIDE = 4096


@dataclass(frozen=True, slots=True)
class LongestEdgeTilesRule:
    """Idefics 3 and SmolVLM: the longest side is scaled to a fixed length, then both to multiples of a tile.

    Source: Idefics3ImageProcessor.
    """

    longest_edge: int
    tile: int
    tokens_per_tile: int
    patches_per_tile: int
    splits: bool

    @classmethod
    def idefics3(cls, options: Options) -> Self:
        return cls._of(options, longest_edge=4 * 364, tile=364, patch=14, scale=2)

    @classmethod
    def smolvlm(cls, options: Options) -> Self:
        return cls._of(options, longest_edge=4 * 512, tile=512, patch=16, scale=4)

    @classmethod
    def _of(cls, options: Options, longest_edge: int, tile: int, patch: int, scale: int) -> Self:
        tile = integer(options, "tile", tile)
        patches = (tile // integer(options, "patch_size", patch)) ** 2
        tokens = int(patches / integer(options, "scale_factor", scale) ** 2)
        return cls(
            integer(options, "longest_edge", longest_edge), tile, tokens, patches, bool(options.get("splits", True))
        )

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        rows, columns = (0, 0) if single_view or not self.splits else self._grid(width, height)
        views = rows * columns + 1
        markers = 2 * rows * columns + rows + (1 if rows else 0) + 3
        return VisionWork(self.tokens_per_tile * views, markers, self.patches_per_tile * views)

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns), (0, 0) for a picture that fits one tile."""
        width, height = _rescaled(width, height, self.longest_edge)
        width, height = _bounded(width, height, _IDEFICS_MAX_SIDE)
        ratio, tile = width / height, self.tile
        if width >= height:
            columns = math.ceil(width / tile)
            rows = math.ceil(int(columns * tile / ratio) / tile)
        else:
            rows = math.ceil(height / tile)
            columns = math.ceil(int(rows * tile * ratio) / tile)
        return (rows, columns) if rows > 1 or columns > 1 else (0, 0)


def _rescaled(width: int, height: int, longest: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        height, width = longest, int(longest * ratio)
        width += width % 2
    return max(width, 1), max(height, 1)


def _bounded(width: int, height: int, longest: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height and width > longest:
        width, height = longest, int(longest / ratio)
    elif height > width and height > longest:
        height, width = longest, int(longest * ratio)
    return max(width, 1), max(height, 1)


@functools.cache
def _grids(least: int, most: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) with `least` to `most` tiles, fewest first."""
    found = [(w, h) for w in range(1, most + 1) for h in range(1, most + 1) if least <= w * h <= most]
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))


def closest_grid(width: int, height: int, tile_area: int, least: int, most: int) -> tuple[int, int]:
    """(columns, rows) of the closest shape; of equal ones the larger, unless the picture would be blown up too far.

    Source: get_optimal_tiled_canvas of transformers' GotOcr2ImageProcessor.
    """
    ratio, area = width / height, width * height
    best, best_difference = (1, 1), math.inf
    for grid in _grids(least, most):
        difference = abs(ratio - grid[0] / grid[1])
        if difference < best_difference or (
            difference == best_difference and area > 0.5 * tile_area * grid[0] * grid[1]
        ):
            best, best_difference = grid, difference
    return best


@dataclass(frozen=True, slots=True)
class ClosestGridRule:
    """InternVL: the grid of the closest shape, and a thumbnail if it has more than one tile."""

    tile_area: int
    tokens_per_tile: int
    patches_per_tile: int
    min_tiles: int
    max_tiles: int

    @classmethod
    def internvl(cls, options: Options) -> Self:
        tile = integer(options, "tile", 448)
        patches = (tile // integer(options, "patch_size", 14)) ** 2
        tokens = int(patches * number(options, "downsample_ratio", 0.5) ** 2)
        return cls(tile * tile, tokens, patches, integer(options, "min_tiles", 1), integer(options, "max_tiles", 12))

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        tiles = 1
        if not single_view and self.max_tiles > 1:
            columns, rows = closest_grid(width, height, self.tile_area, self.min_tiles, self.max_tiles)
            tiles = columns * rows
        views = tiles + (1 if tiles > 1 else 0)
        return VisionWork(self.tokens_per_tile * views, 2, self.patches_per_tile * views)


@dataclass(frozen=True, slots=True)
class HdTransformRule:
    """Phi-4-multimodal: tiles that cover the picture at its own size, padding not counted, and a global view.

    Source: Phi4MultimodalImageProcessor.
    """

    tile: int
    patch_size: int
    max_tiles: int

    @classmethod
    def phi4(cls, options: Options) -> Self:
        return cls(integer(options, "tile", 448), integer(options, "patch_size", 14), integer(options, "max_tiles", 36))

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        tile = self.tile
        columns, rows = math.ceil(width / tile), math.ceil(height / tile)
        if columns * rows > self.max_tiles:
            columns, rows = closest_grid(width, height, tile * tile, 1, self.max_tiles)
        scale_x, scale_y = tile * columns / width, tile * rows / height
        pad_x = pad_y = 0
        if scale_x < scale_y:
            pad_y = tile * rows - int(height * scale_x)
        else:
            pad_x = tile * columns - int(width * scale_y)
        side = tile // self.patch_size
        shown_rows = math.ceil((side * rows - pad_y // self.patch_size) / 2)
        shown_columns = math.ceil((side * columns - pad_x // self.patch_size) / 2)
        half = math.ceil(side / 2)
        tokens = half * half + 1 + shown_rows * shown_columns + shown_rows + half
        return VisionWork(tokens, 0, (columns * rows + 1) * side * side)
