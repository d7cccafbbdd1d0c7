"""Who owns which KV block.

Every block of the pool is in exactly one of three states:

    free    nobody holds it, content worthless
    cached  nobody holds it, content known under a prefix key: found again by `find`, evicted (oldest first) when needed
    owned   in `ref_count` block tables

so that free + cached + owned = total, always. Memory pressure can take free blocks out of the pool for a while
(withheld): the total is less by them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from foveal.core.errors import IntegrityError

__all__ = ["BlockPool"]


class BlockPool:
    """Block ids [0, num_blocks) with reference counts and prefix keys."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        # An OrderedDict, because the oldest entry of a plain dict is found in linear time once its front was deleted.
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._ref_counts = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}
        self._withheld: list[int] = []

    @property
    def num_withheld(self) -> int:
        return len(self._withheld)

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    @property
    def num_owned(self) -> int:
        return self.num_blocks - len(self._free) - len(self._cached) - len(self._withheld)

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out: free and cached ones."""
        return len(self._free) + len(self._cached)

    def ref_count(self, block: int) -> int:
        return self._ref_counts[block]

    def allocate(self, count: int) -> list[int]:
        """`count` blocks with one reference each; evicts the oldest cached ones when none is free.

        Raises IntegrityError if fewer are available: callers look at `num_available` first.
        """
        if count > self.num_available:
            raise IntegrityError(f"{count} blocks asked for, {self.num_available} available")
        blocks = []
        for _ in range(count):
            block = self._free.pop() if self._free else self._evict()
            self._ref_counts[block] = 1
            blocks.append(block)
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """One more reference to each owned or cached block."""
        for block in blocks:
            if self._ref_counts[block] == 0:
                if block not in self._cached:
                    raise IntegrityError(f"block {block} is free and cannot be shared")
                del self._cached[block]
            self._ref_counts[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One reference less for each; blocks with a key stay cached.

        The last block of a table becomes evictable first: a prefix is useful without its tail, not the other way round.
        """
        for block in reversed(blocks):
            count = self._ref_counts[block] - 1
            if count < 0:
                raise IntegrityError(f"block {block} is released more often than it was taken")
            self._ref_counts[block] = count
            if count == 0:
                if self._keys[block] is None:
                    self._free.append(block)
                else:
                    self._cached[block] = None

    def register(self, block: int, key: bytes) -> bool:
        """Make an owned block's content findable. False if that content is already known in another block."""
        if self._ref_counts[block] == 0:
            raise IntegrityError(f"block {block} is not owned and cannot get a prefix key")
        known = self._by_key.setdefault(key, block)
        if known != block:
            return False
        self._keys[block] = key
        return True

    def find(self, key: bytes) -> int | None:
        """The owned or cached block with that content."""
        return self._by_key.get(key)

    def count_cached(self, blocks: Iterable[int]) -> int:
        """How many of these blocks nobody holds at the moment."""
        return sum(self._ref_counts[block] == 0 for block in blocks)

    def clear_cache(self) -> int:
        """Forget all prefix keys; returns how many cached blocks became free. Owned blocks stay with their owners."""
        count = len(self._cached)
        self._free.extend(self._cached)
        self._cached.clear()
        self._by_key.clear()
        self._keys = [None] * self.num_blocks
        return count

    def withhold(self, count: int) -> list[int]:
        """Take up to `count` free blocks out of the pool, those with the highest ids: long runs of neighbours."""
        self._free.sort(reverse=True)
        taken, self._free = self._free[:count], self._free[count:]
        self._withheld += taken
        return taken

    def restore(self) -> int:
        """Give all withheld blocks back to the pool; returns how many."""
        count = len(self._withheld)
        self._free = self._withheld + self._free
        self._withheld = []
        return count

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Raises IntegrityError unless the three states partition the pool and `tables` explain every reference."""
        free, cached = set(self._free), set(self._cached)
        owned = {block for block, count in enumerate(self._ref_counts) if count}
        if len(free) != len(self._free) or free & cached or free & owned or cached & owned:
            raise IntegrityError("a block is in two states at once")
        withheld = set(self._withheld)
        if withheld & (free | cached | owned):
            raise IntegrityError("a withheld block is in use")
        if len(free) + len(cached) + len(owned) + len(withheld) != self.num_blocks:
            raise IntegrityError(
                f"free {len(free)} + cached {len(cached)} + owned {len(owned)} + withheld {len(withheld)} is not total "
                f"{self.num_blocks}"
            )
        held = Counter(block for table in tables for block in table)
        for block, count in enumerate(self._ref_counts):
            if held[block] != count:
                raise IntegrityError(f"block {block} has {count} references but is in {held[block]} block tables")
        for key, block in self._by_key.items():
            if self._keys[block] != key:
                raise IntegrityError(f"block {block} is listed under a key it does not have")
        if any(self._keys[block] is None for block in cached) or any(self._keys[block] is not None for block in free):
            raise IntegrityError("a cached block has no key, or a free one has")

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        key = self._keys[block]
        assert key is not None
        del self._by_key[key]
        self._keys[block] = None
        return block
