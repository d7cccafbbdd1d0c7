"""A priority queue whose entries can change their rank or leave."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

__all__ = ["PriorityMap"]

Key = TypeVar("Key", bound=Hashable)


class PriorityMap(Generic[Key]):
    """Keys ordered by a rank, the smallest first; among equal ranks the one that was set first. O(log n), amortised.

    An entry that changed stays in the heap until it comes to the top or until half of the heap is such waste.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._entries: dict[Key, tuple[float, int]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Any) -> bool:
        return key in self._entries

    def set(self, key: Key, rank: float) -> None:
        """Add `key`, or move it to a new rank."""
        self._next += 1
        self._entries[key] = (rank, self._next)
        heappush(self._heap, (rank, self._next, key))
        if len(self._heap) > 2 * len(self._entries) + 32:
            self._heap = [(rank, number, key) for key, (rank, number) in self._entries.items()]
            heapify(self._heap)

    def discard(self, key: Key) -> None:
        self._entries.pop(key, None)

    def first(self) -> tuple[float, Key] | None:
        """(rank, key) of the smallest rank; None if empty."""
        heap = self._heap
        while heap:
            rank, number, key = heap[0]
            current = self._entries.get(key)
            if current is not None and current[1] == number:
                return rank, key
            heappop(heap)
        return None
