"""LLaVA-NeXT: one global view and the best of a list of resolutions, its padding cut away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from foveal.gateway.pricing.rules.rule import Options, VisionWork, integer

__all__ = ["AnyResRule"]

_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


@dataclass(frozen=True, slots=True)
class AnyResRule:
    """Source: LlavaNextModel.pack_image_features and select_best_resolution."""

    tile: int
    side: int
    """Patches along a tile."""
    pinpoints: tuple[tuple[int, int], ...]
    """(height, width) of each resolution."""
    extra: int
    """Class tokens kept per view."""

    @classmethod
    def llava_next(cls, options: Options) -> Self:
        tile = integer(options, "tile", 336)
        found = options.get("pinpoints", _PINPOINTS)
        if not isinstance(found, Sequence) or not found:
            raise ValueError(f"pinpoints is {found!r}; it must be a list of (height, width)")
        pinpoints = tuple((int(height), int(width)) for height, width in found)
        extra = int(options.get("class_tokens", 1)) - int(options.get("drops_first", 1))
        return cls(tile, tile // integer(options, "patch_size", 14), pinpoints, extra)

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        best_height, best_width = self._best(width, height)
        rows, columns = self.side * (best_height // self.tile), self.side * (best_width // self.tile)
        tiles = 1 + (best_height // self.tile) * (best_width // self.tile)
        tokens = self.side * self.side + self.extra + _unpadded(width, height, rows, columns)
        return VisionWork(tokens, 0, tiles * self.side * self.side)

    def _best(self, width: int, height: int) -> tuple[int, int]:
        best, most, least_waste = self.pinpoints[0], 0, float("inf")
        for pin_height, pin_width in self.pinpoints:
            scale = min(pin_width / width, pin_height / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            waste = pin_height * pin_width - used
            if used > most or (used == most and waste < least_waste):
                best, most, least_waste = (pin_height, pin_width), used, waste
        return best


def _unpadded(width: int, height: int, rows: int, columns: int) -> int:
    """Features of the grid without padding, and a newline feature per row."""
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    return rows * columns + rows
