"""From a plan of ids to the tensors of one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from foveal.engine.execution.block_tables import BlockTables
from foveal.engine.execution.prompt_state import PromptState
from foveal.engine.scheduling.plan import ScheduledRow
from foveal.engine.scheduling.request import Request
from foveal.kernels.attention_batch import AttentionBatch
from foveal.models.base import ModelStep

__all__ = ["build_step"]


def build_step(
    rows: Sequence[ScheduledRow],
    requests: Mapping[str, Request],
    states: Mapping[str, PromptState],
    features: Callable[[bytes], torch.Tensor],
    block_tables: BlockTables,
    *,
    block_size: int,
    position_rows: int,
    device: torch.device,
) -> ModelStep:
    """`states` is keyed by group id; `features(content_hash)` is [num_tokens, feature_width]."""
    total = sum(row.num_tokens for row in rows)
    token_ids = np.empty(total, dtype=np.int64)
    positions = np.empty((position_rows, total), dtype=np.int64)
    slots = np.empty(total, dtype=np.int64)
    widest = -(-max(row.end for row in rows) // block_size)
    tables = np.zeros((len(rows), widest), dtype=np.int64)
    image_mask: np.ndarray | None = None
    pieces: list[torch.Tensor] = []
    span_ids: list[torch.Tensor | None] | None = None
    q_starts = [0]
    kv_lens = []
    at = 0
    for s, row in enumerate(rows):
        request = requests[row.request_id]
        state = states[request.group_id]
        start, count, drafts = row.start, row.num_tokens, row.draft_token_ids
        end, row_end = at + count, start + count
        first = start // block_size
        table = tables[s, : -(-row_end // block_size)]
        block_tables.write(row.request_id, request.block_table, first, table)
        if count == 1:
            token_ids[at] = request.token_at(start)
            slots[at] = request.block_table[first] * block_size + start % block_size
        else:
            token_ids[at:end] = [*request.token_slice(start, row_end - len(drafts)), *drafts]
            index = np.arange(start, row_end)
            slots[at:end] = table[index // block_size] * block_size + index % block_size
        state.write_positions(positions, at, start, count)
        if row.start < state.last_span_end:
            if image_mask is None:
                image_mask = np.zeros(total, dtype=np.bool_)
            pieces += _place_features(image_mask[at:end], row, state, features)
        if state.span_ids is not None:
            span_ids = span_ids or [None] * len(rows)
            tail = max(0, row_end - len(state.span_ids))
            known = state.span_ids[:row_end]
            span_ids[s] = torch.cat([known, known.new_full((tail,), -1)]) if tail else known
        q_starts.append(end)
        kv_lens.append(row_end)
        at = end
    return ModelStep(
        token_ids=torch.from_numpy(token_ids).to(device),
        positions=torch.from_numpy(positions).to(device),
        image_mask=None if image_mask is None or not pieces else torch.from_numpy(image_mask).to(device),
        image_features=torch.cat(pieces) if pieces else None,
        attention=AttentionBatch(
            slots=torch.from_numpy(slots).to(device),
            block_tables=torch.from_numpy(tables).to(device),
            q_starts=q_starts,
            kv_lens=kv_lens,
            span_ids=span_ids,
        ),
    )


def _place_features(
    mask: np.ndarray, row: ScheduledRow, state: PromptState, features: Callable[[bytes], torch.Tensor]
) -> list[torch.Tensor]:
    """Mark the row's image tokens in `mask` [num_tokens] and return their feature rows in token order."""
    pieces = []
    for span in state.prompt.spans:
        low, high = max(span.offset, row.start), min(span.offset + span.length, row.end)
        if low < high:
            mask[low - row.start : high - row.start] = True
            # Offset inside the image, not inside the chunk: the second chunk of an image continues where the first ended.
            first = span.feature_offset + low - span.offset
            pieces.append(features(state.prompt.images[span.image_index].content_hash)[first : first + high - low])
    return pieces
