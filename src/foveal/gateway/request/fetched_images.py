"""Pictures that were fetched lately, as data URLs ready to be spliced into a body."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["FetchedImage", "FetchedImages", "ImageKey"]

ImageKey = tuple[str, str]
"""Tenant and URL: no tenant learns from timing what another one fetched."""


@dataclass(frozen=True, slots=True)
class FetchedImage:
    data_url: bytes
    """Without quotes; holds nothing that JSON would have to escape."""
    width: int
    height: int
    num_bytes: int
    digest: bytes
    """BLAKE3 (16 bytes) of the file."""


class FetchedImages:
    """Least recently used ones go first when the bytes exceed the budget. No clock of its own."""

    def __init__(self, budget_bytes: int, ttl_s: float) -> None:
        self._budget_bytes = budget_bytes
        self._ttl_s = ttl_s
        self._images: OrderedDict[ImageKey, tuple[float, FetchedImage]] = OrderedDict()
        self.num_bytes = 0

    def get(self, key: ImageKey, now_s: float) -> FetchedImage | None:
        found = self._images.get(key)
        if found is None:
            return None
        expires_s, image = found
        if now_s >= expires_s:
            self._drop(key)
            return None
        self._images.move_to_end(key)
        return image

    def put(self, key: ImageKey, image: FetchedImage, now_s: float) -> None:
        """An image larger than the budget is not kept."""
        self._drop(key)
        size = len(image.data_url)
        if size > self._budget_bytes or not self._ttl_s > 0:
            return
        self._images[key] = (now_s + self._ttl_s, image)
        self.num_bytes += size
        while self.num_bytes > self._budget_bytes:
            self._drop(next(iter(self._images)))

    def _drop(self, key: ImageKey) -> None:
        found = self._images.pop(key, None)
        if found is not None:
            self.num_bytes -= len(found[1].data_url)
