"""Where an image sits in a prompt; shared by processors, scheduler and runner."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImageSpan"]


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """A contiguous run of placeholder tokens: prompt positions [offset, offset + length).

    They take feature rows [feature_offset, feature_offset + length) of image `image_index`. Families that cut an image
    into tiles with marker tokens between them have several spans for one image.
    """

    offset: int
    length: int
    image_index: int
    feature_offset: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length
