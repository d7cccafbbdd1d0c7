"""The draft model's own KV pool: which blocks hold which request's tokens."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DraftPool", "DraftSequence"]


class DraftSequence:
    """One request in the pool. Committed tokens never change; what was guessed behind them may."""

    __slots__ = ("blocks", "num_verified", "tail")

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.num_verified = 0
        """Positions [0, num_verified) hold committed tokens."""
        self.tail: list[int] = []
        """Token ids at the positions behind them."""

    @property
    def num_cached(self) -> int:
        return self.num_verified + len(self.tail)

    def rewind(self, num_verified: int) -> None:
        """Forget what lies behind that many committed tokens."""
        if num_verified < self.num_verified:
            self.num_verified = num_verified
            self.tail = []

    def keep(self, context: Sequence[int], num_committed: int) -> int:
        """Forget the tail from where it differs from `context`; returns how many positions are good.

        `context` are the tokens wanted from position num_verified on, the first `num_committed` of them committed. The
        last one is always computed again: its logits are needed.
        """
        same = 0
        for cached, wanted in zip(self.tail, context[:-1], strict=False):
            if cached != wanted:
                break
            same += 1
        verified = min(same, num_committed)
        self.tail = self.tail[verified:same]
        self.num_verified += verified
        return self.num_cached


class DraftPool:
    """Blocks on loan to requests, the longest unused request first to lose its own."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._free = list(range(num_blocks))
        self._sequences: dict[str, DraftSequence] = {}
        """Least recently used first."""

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def use(self, request_id: str) -> DraftSequence:
        """The request's sequence, a new one if it has none."""
        sequence = self._sequences.pop(request_id, None) or DraftSequence()
        self._sequences[request_id] = sequence
        return sequence

    def reserve(self, sequence: DraftSequence, num_tokens: int, busy: set[str]) -> bool:
        """Blocks for that many tokens; requests that are not `busy` give theirs up if need be. False if it is too many."""
        missing = -(-num_tokens // self.block_size) - len(sequence.blocks)
        if missing > len(self._free):
            for name in [name for name in self._sequences if name not in busy]:
                self.release(name)
                if missing <= len(self._free):
                    break
        if missing > len(self._free):
            return False
        for _ in range(missing):
            sequence.blocks.append(self._free.pop())
        return True

    def release(self, request_id: str) -> None:
        """Unknown ids are ignored."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._free += sequence.blocks
