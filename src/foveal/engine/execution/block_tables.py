"""Block tables as arrays, kept from step to step: turning lists of thousands of ids into arrays is what would grow with
the context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BlockTables"]


@dataclass(slots=True)
class _Table:
    source: list[int]
    """The scheduler's list; a request that is admitted again has another one."""
    ids: npt.NDArray[np.int64]
    length: int


class BlockTables:
    """By request id."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}

    def __len__(self) -> int:
        return len(self._tables)

    def write(self, request_id: str, blocks: list[int], first: int, out: npt.NDArray[np.int64]) -> None:
        """Copy `blocks[:len(out)]` to `out`. Since the last call only blocks from `first` on may have changed: a step
        replaces none before the one that it writes to."""
        used = len(out)
        table = self._tables.get(request_id)
        if table is None or table.source is not blocks:
            ids = np.zeros(2 * used, dtype=np.int64)
            ids[:used] = blocks[:used]
            self._tables[request_id] = _Table(blocks, ids, used)
            out[:] = ids[:used]
            return
        if used > len(table.ids):
            table.ids = np.concatenate([table.ids, np.zeros(2 * used - len(table.ids), dtype=np.int64)])
        start = min(first, table.length)
        if used - start == 1:
            table.ids[start] = blocks[start]
        elif used > start:
            table.ids[start:used] = blocks[start:used]
        table.length = used
        out[:] = table.ids[:used]

    def forget(self, request_id: str) -> None:
        self._tables.pop(request_id, None)
