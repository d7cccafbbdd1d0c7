"""Pictures that were fetched lately, as data URLs ready to be spliced into a body."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["FetchedImage", "FetchedImages"]


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
        self._images: OrderedDict[str, tuple[float, FetchedImage]] = OrderedDict()
        self.num_bytes = 0

    def get(self, url: str, now_s: float) -> FetchedImage | None:
        found = self._images.get(url)
        if found is None:
            return None
        expires_s, image = found
        if now_s >= expires_s:
            self._drop(url)
            return None
        self._images.move_to_end(url)
        return image

    def put(self, url: str, image: FetchedImage, now_s: float) -> None:
        """An image larger than the budget is not kept."""
        self._drop(url)
        size = len(image.data_url)
        if size > self._budget_bytes or not self._ttl_s > 0:
            return
        self._images[url] = (now_s + self._ttl_s, image)
        self.num_bytes += size
        while self.num_bytes > self._budget_bytes:
            self._drop(next(iter(self._images)))

    def _drop(self, url: str) -> None:
        found = self._images.pop(url, None)
        if found is not None:
            self.num_bytes -= len(found[1].data_url)
