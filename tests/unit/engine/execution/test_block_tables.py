"""Tables kept from step to step are the scheduler's lists, whatever happened to those in between."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foveal.engine.execution.block_tables import BlockTables

STEP = st.tuples(st.sampled_from(["go on", "copy on write", "admitted again", "roll back"]), st.integers(1, 7))


@given(st.lists(STEP, max_size=40))
def test_what_is_written_is_the_list(steps: list[tuple[str, int]]) -> None:
    tables, blocks, computed, fresh, size = BlockTables(), [0], 0, 1, 4
    for kind, count in steps:
        if kind == "admitted again":
            computed, blocks = 0, [fresh + k for k in range(len(blocks))]
            fresh += len(blocks)
        elif kind == "roll back":
            # Drafts were rejected: blocks stay, the next step starts before where the last one ended.
            computed = max(0, computed - count % 4)
        end = computed + count
        first = computed // size
        if kind == "copy on write" and first < len(blocks):
            blocks[first] = fresh
            fresh += 1
        while len(blocks) * size < end:
            blocks.append(fresh)
            fresh += 1
        out = np.zeros(-(-end // size), dtype=np.int64)
        tables.write("a", blocks, first, out)
        assert out.tolist() == blocks[: len(out)]
        computed = end
    tables.forget("a")
    tables.forget("unknown")
    assert len(tables) == 0
