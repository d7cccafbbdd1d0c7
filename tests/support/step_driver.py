"""The smallest loop that drives a LanguageModel: mixed prefill and decode under one token budget. No cache, no policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.models.base import LanguageModel, ModelStep
from foveal.models.image_input import PromptInput

__all__ = ["BLOCK_SIZE", "generate", "new_kv_cache", "span_ids_of"]

BLOCK_SIZE = 4


@dataclass
class _Sequence:
    prompt: PromptInput
    positions: torch.Tensor
    delta: int
    features: list[torch.Tensor]
    tokens: list[int]
    span_ids: torch.Tensor
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0

    def position_slice(self, start: int, end: int) -> torch.Tensor:
        length = self.positions.shape[1]
        decoded = torch.arange(max(start, length), max(end, length)) + self.delta
        return torch.cat([self.positions[:, start:end], decoded.expand(len(self.positions), -1)], 1)

    def image_slice(self, start: int, end: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        mask = torch.zeros(end - start, dtype=torch.bool)
        rows = []
        for span in self.prompt.spans:
            low, high = max(start, span.offset), min(end, span.offset + span.length)
            if low < high:
                mask[low - start : high - start] = True
                first = span.feature_offset + low - span.offset
                rows.append(self.features[span.image_index][first : first + high - low])
        return mask, rows

    def cut(self, count: int, atomic: bool) -> int:
        """Shrink a chunk so that it does not end inside a span; a span larger than the chunk is taken whole."""
        if not atomic:
            return count
        for span in self.prompt.spans:
            if span.offset < self.num_computed + count < span.offset + span.length:
                before = span.offset - self.num_computed
                return before if before > 0 else span.length
        return count


def span_ids_of(prompt: PromptInput) -> torch.Tensor:
    """[len(token_ids)] number of the span at each position, -1 for text."""
    ids = torch.full((len(prompt.token_ids),), -1)
    for number, span in enumerate(prompt.spans):
        ids[span.offset : span.offset + span.length] = number
    return ids


def new_kv_cache(model: LanguageModel, num_blocks: int = 256) -> KVCache:
    """Filled with NaN: reading a slot that was never written shows."""
    spec = model.spec
    shape = (spec.num_layers, (num_blocks + 1) * BLOCK_SIZE, spec.num_kv_heads, spec.head_dim)
    key, value = (torch.full(shape, float("nan"), dtype=model.dtype) for _ in range(2))
    return KVCache(key, value, BLOCK_SIZE)


def generate(
    model: LanguageModel, prompts: Sequence[PromptInput], *, num_new_tokens: int, token_budget: int
) -> list[list[int]]:
    """Greedy continuations; requests arrive one step apart, decoding goes first, prompts fill what is left."""
    kv_cache = new_kv_cache(model)
    free_blocks = list(range(kv_cache.num_blocks))
    waiting = [_start(model, prompt) for prompt in prompts]
    every, running = list(waiting), []
    while waiting or running:
        if waiting:
            running.append(waiting.pop(0))
        plan: list[tuple[_Sequence, int]] = []
        left = token_budget
        for sequence in sorted(running, key=lambda one: len(one.tokens) - one.num_computed > 1):
            wanted = min(left, len(sequence.tokens) - sequence.num_computed)
            count = sequence.cut(wanted, model.spec.atomic_image_spans) if wanted else 0
            if count:
                plan.append((sequence, count))
                left = max(0, left - count)
        for sequence, token in zip([one for one, _ in plan], _step(model, kv_cache, free_blocks, plan), strict=True):
            if sequence.num_computed == len(sequence.tokens):
                sequence.tokens.append(token)
                if len(sequence.tokens) - len(sequence.prompt.token_ids) == num_new_tokens:
                    running.remove(sequence)
                    free_blocks += sequence.blocks
    return [one.tokens[len(one.prompt.token_ids) :] for one in every]


def _start(model: LanguageModel, prompt: PromptInput) -> _Sequence:
    positions, delta = model.rope_positions(prompt)
    features = model.encode_images(prompt.images) if prompt.images else []
    return _Sequence(prompt, positions, delta, features, list(prompt.token_ids), span_ids_of(prompt))


def _step(
    model: LanguageModel, kv_cache: KVCache, free_blocks: list[int], plan: list[tuple[_Sequence, int]]
) -> list[int]:
    """Run one step; the most likely next token of every row."""
    tokens: list[int] = []
    positions, masks, rows, slots, spans = [], [], [], [], []
    q_starts, kv_lens = [0], []
    for sequence, count in plan:
        start, end = sequence.num_computed, sequence.num_computed + count
        while len(sequence.blocks) * BLOCK_SIZE < end:
            sequence.blocks.append(free_blocks.pop())
        tokens += sequence.tokens[start:end]
        positions.append(sequence.position_slice(start, end))
        mask, image_rows = sequence.image_slice(start, end)
        masks.append(mask)
        rows += image_rows
        where = torch.arange(start, end)
        slots.append(torch.tensor(sequence.blocks)[where // BLOCK_SIZE] * BLOCK_SIZE + where % BLOCK_SIZE)
        text = torch.full((max(0, end - len(sequence.span_ids)),), -1)
        spans.append(torch.cat([sequence.span_ids, text])[:end])
        q_starts.append(q_starts[-1] + count)
        kv_lens.append(end)
        sequence.num_computed = end
    tables = torch.zeros((len(plan), max(len(one.blocks) for one, _ in plan)), dtype=torch.int64)
    for row, (sequence, _) in enumerate(plan):
        tables[row, : len(sequence.blocks)] = torch.tensor(sequence.blocks)
    batch = AttentionBatch(
        torch.cat(slots), tables, q_starts, kv_lens, spans if model.spec.atomic_image_spans else None
    )
    mask = torch.cat(masks) if rows else None
    features = torch.cat(rows) if rows else None
    hidden = model.forward(ModelStep(torch.tensor(tokens), torch.cat(positions, 1), mask, features, batch), kv_cache)
    last = torch.tensor(q_starts[1:]) - 1
    return model.compute_logits(hidden[last]).argmax(-1).tolist()
