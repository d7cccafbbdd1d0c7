"""The index arithmetic of one attention step, done once and shared by all layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from foveal.kernels.attention_batch import AttentionBatch
from foveal.kernels.length_groups import group_by_length

__all__ = ["AttentionPlan", "DecodeGroup", "PrefillRow", "WindowPlan", "plan_of"]


@dataclass(slots=True)
class DecodeGroup:
    """n requests with one query token each and similar context lengths, padded to L positions."""

    tokens: torch.Tensor | None
    """[n] which of the T tokens; None when they are all T tokens in order."""
    kv_rows: torch.Tensor
    """[n * Hkv * L] rows of the KV pool seen as [slots * Hkv, D], in (request, head, position) order."""
    bias: torch.Tensor | None
    """[n * Hkv, 1, L] 0 or -inf; None when no position is padding."""
    count: int
    length: int


@dataclass(slots=True)
class PrefillRow:
    """One request with several query tokens."""

    start: int
    end: int
    kv_slots: torch.Tensor | None
    """[K] slots of the visible context; None when the context is exactly the new tokens."""
    bias: torch.Tensor | None
    """[end - start, K] 0 or -inf; None means plain causal attention over the new tokens alone."""


@dataclass(slots=True)
class WindowPlan:
    """The step as a layer with one particular sliding window (or none) sees it."""

    decode: list[DecodeGroup]
    prefill: list[PrefillRow]


@dataclass(slots=True)
class AttentionPlan:
    """Everything derived from an AttentionBatch; built by the first layer that asks."""

    batch: AttentionBatch
    block_size: int
    num_kv_heads: int
    dtype: torch.dtype
    windows: dict[int | None, WindowPlan] = field(default_factory=dict)

    def for_window(self, window: int | None) -> WindowPlan:
        """The plan for layers that see the last `window` positions (None: all)."""
        plan = self.windows.get(window)
        if plan is None:
            plan = self.windows[window] = self._build(window)
        return plan

    def _build(self, window: int | None) -> WindowPlan:
        batch = self.batch
        decode_rows: list[int] = []
        prefill: list[PrefillRow] = []
        for row, kv_len in enumerate(batch.kv_lens):
            start, end = batch.q_starts[row], batch.q_starts[row + 1]
            if end - start == 1:
                decode_rows.append(row)
            elif end > start:
                prefill.append(self._prefill_row(row, start, end, kv_len, window))
        return WindowPlan(self._decode_groups(decode_rows, window), prefill)

    def _decode_groups(self, rows: list[int], window: int | None) -> list[DecodeGroup]:
        batch = self.batch
        ends = [batch.kv_lens[row] for row in rows]
        lengths = ends if window is None else [min(end, window) for end in ends]
        groups = []
        num_tokens = batch.q_starts[-1]
        for group in group_by_length(lengths):
            # Token order within a group lets a pure decode step use the query tensor as it is.
            members = sorted(group.members)
            chosen = [rows[member] for member in members]
            token_ids = [batch.q_starts[row] for row in chosen]
            tokens = None if token_ids == list(range(num_tokens)) else self._ints(token_ids)
            length = group.padded_length
            steps = torch.arange(length, device=batch.slots.device)
            starts = self._ints([ends[member] - lengths[member] for member in members])
            counts = self._ints([lengths[member] for member in members])
            # Padding repeats the first visible position: a slot that exists and holds finite numbers.
            valid = steps < counts[:, None]
            positions = starts[:, None] + torch.where(valid, steps, 0)
            slots = self._slots(self._ints(chosen), positions)
            heads = torch.arange(self.num_kv_heads, device=slots.device)
            kv_rows = (slots[:, None, :] * self.num_kv_heads + heads[:, None]).reshape(-1)
            bias = None
            if any(lengths[member] != length for member in members):
                bias = self._bias(valid)[:, None].repeat_interleave(self.num_kv_heads, 0)
            groups.append(DecodeGroup(tokens, kv_rows, bias, len(members), length))
        return groups

    def _prefill_row(self, row: int, start: int, end: int, kv_len: int, window: int | None) -> PrefillRow:
        batch = self.batch
        num_queries = end - start
        spans = batch.span_ids[row] if batch.span_ids is not None else None
        fresh = kv_len == num_queries
        if fresh and spans is None and (window is None or window >= kv_len):
            return PrefillRow(start, end, None, None)
        first_query = kv_len - num_queries
        low = 0 if window is None else max(0, first_query - window + 1)
        device = batch.slots.device
        queries = torch.arange(first_query, kv_len, device=device)[:, None]
        keys = torch.arange(low, kv_len, device=device)
        visible = keys <= queries
        if spans is not None:
            query_spans = spans[first_query:kv_len, None]
            visible = visible | ((query_spans == spans[low:kv_len]) & (query_spans >= 0))
        if window is not None:
            visible = visible & (queries - keys < window)
        slots = None if fresh else self._slots(self._ints([row]), keys[None])[0]
        return PrefillRow(start, end, slots, self._bias(visible))

    def _slots(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Pool slots of `positions` [n, L] of the requests `rows` [n]."""
        blocks = self.batch.block_tables[rows].gather(1, positions // self.block_size)
        return blocks * self.block_size + positions % self.block_size

    def _bias(self, visible: torch.Tensor) -> torch.Tensor:
        return torch.zeros(visible.shape, dtype=self.dtype, device=visible.device).masked_fill_(~visible, float("-inf"))

    def _ints(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.batch.slots.device)


def plan_of(batch: AttentionBatch, block_size: int, num_kv_heads: int, dtype: torch.dtype) -> AttentionPlan:
    """The batch's plan, built on first use. The batch must not be changed afterwards."""
    plan = batch.plan
    if plan is None:
        plan = batch.plan = AttentionPlan(batch, block_size, num_kv_heads, dtype)
    return plan
