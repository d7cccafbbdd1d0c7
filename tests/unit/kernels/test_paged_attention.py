"""Paged attention equals plain float64 attention that knows nothing of blocks, groups or padding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.paged_attention import paged_attention

HEAD_DIM = 8


@dataclass(frozen=True)
class Row:
    """One request: `past` positions in the pool, then `new` query tokens; image spans as (offset, length)."""

    past: int
    new: int
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        return self.past + self.new


@dataclass
class Step:
    """A step and its tensors. The pool is NaN where no request has written: free blocks, tails and the dummy block."""

    query: torch.Tensor
    keys: list[torch.Tensor]
    """Per request [length, Hkv, D], past and new."""
    values: list[torch.Tensor]
    key_pool: torch.Tensor
    value_pool: torch.Tensor
    batch: AttentionBatch
    block_size: int
    owned: torch.Tensor
    """Slots of all positions of all requests."""

    def run(self, window: int | None = None) -> torch.Tensor:
        new = [slice(length - count, None) for length, count in zip(self.batch.kv_lens, self._counts(), strict=True)]
        return paged_attention(
            self.query,
            torch.cat([keys[part] for keys, part in zip(self.keys, new, strict=True)]),
            torch.cat([values[part] for values, part in zip(self.values, new, strict=True)]),
            self.key_pool,
            self.value_pool,
            self.batch,
            block_size=self.block_size,
            scale=HEAD_DIM**-0.5,
            sliding_window=window,
        )

    def reference(self, window: int | None = None) -> torch.Tensor:
        """One query and head after another, in float64."""
        group = self.query.shape[1] // self.keys[0].shape[1]
        out = torch.empty(self.query.shape, dtype=torch.float64)
        token = 0
        for row, (length, count) in enumerate(zip(self.batch.kv_lens, self._counts(), strict=True)):
            spans = self.batch.span_ids[row] if self.batch.span_ids else None
            for position in range(length - count, length):
                seen = [
                    other
                    for other in range(length)
                    if (other <= position or (spans is not None and spans[other] == spans[position] >= 0))
                    and (window is None or position - other < window)
                ]
                for head in range(self.query.shape[1]):
                    keys = self.keys[row][seen, head // group].double()
                    scores = keys @ self.query[token, head].double() / math.sqrt(HEAD_DIM)
                    out[token, head] = scores.softmax(0) @ self.values[row][seen, head // group].double()
                token += 1
        return out

    def _counts(self) -> list[int]:
        return [end - start for start, end in zip(self.batch.q_starts, self.batch.q_starts[1:], strict=False)]


def make_step(rows: list[Row], *, block_size: int = 4, num_kv_heads: int = 2, group: int = 2, seed: int = 0) -> Step:
    generator = torch.Generator().manual_seed(seed)

    def noise(count: int, heads: int) -> torch.Tensor:
        return torch.randn((count, heads, HEAD_DIM), generator=generator)

    keys = [noise(row.length, num_kv_heads) for row in rows]
    values = [noise(row.length, num_kv_heads) for row in rows]
    query = noise(sum(row.new for row in rows), num_kv_heads * group)
    needed = [-(-row.length // block_size) for row in rows]
    num_blocks = sum(needed) + 3
    shuffled = torch.randperm(num_blocks, generator=generator)
    tables = torch.zeros((len(rows), max(needed)), dtype=torch.int64)
    shape = ((num_blocks + 1) * block_size, num_kv_heads, HEAD_DIM)
    key_pool, value_pool = torch.full(shape, math.nan), torch.full(shape, math.nan)
    taken, q_starts, new_slots, owned, span_ids = 0, [0], [], [], []
    for index, row in enumerate(rows):
        tables[index, : needed[index]] = shuffled[taken : taken + needed[index]]
        taken += needed[index]
        positions = torch.arange(row.length)
        slots = tables[index, positions // block_size] * block_size + positions % block_size
        key_pool[slots[: row.past]] = keys[index][: row.past]
        value_pool[slots[: row.past]] = values[index][: row.past]
        new_slots.append(slots[row.past :])
        owned.append(slots)
        q_starts.append(q_starts[-1] + row.new)
        ids = torch.full((row.length,), -1)
        for number, (offset, length) in enumerate(row.spans):
            ids[offset : offset + length] = number
        span_ids.append(ids if row.spans else None)
    batch = AttentionBatch(
        torch.cat(new_slots),
        tables,
        q_starts,
        [row.length for row in rows],
        span_ids if any(row.spans for row in rows) else None,
    )
    return Step(query, keys, values, key_pool, value_pool, batch, block_size, torch.cat(owned))


@st.composite
def rows(draw: st.DrawFn, *, with_spans: bool) -> Row:
    """A decode row half of the time; spans never overlap, and may begin in the past."""
    past, new = draw(st.integers(0, 40)), draw(st.one_of(st.just(1), st.integers(1, 12)))
    spans = []
    offset = 0
    while with_spans and len(spans) < 3:
        offset += draw(st.integers(0, 8))
        length = draw(st.integers(1, 10))
        if offset + length > past + new:
            break
        spans.append((offset, length))
        offset += length
    return Row(past, new, tuple(spans))


def steps(*, with_spans: bool) -> st.SearchStrategy[Step]:
    return st.builds(
        make_step,
        st.lists(rows(with_spans=with_spans), min_size=1, max_size=5),
        block_size=st.sampled_from([1, 3, 4, 16]),
        num_kv_heads=st.sampled_from([1, 2, 3]),
        group=st.sampled_from([1, 2, 4]),
        seed=st.integers(0, 2**31),
    )


windows = st.one_of(st.none(), st.integers(1, 20), st.just(1000))


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(step=steps(with_spans=False), window=windows)
def test_a_mixed_step_equals_plain_attention(step, window):
    assert_close(step.run(window), step.reference(window))


@settings(deadline=None, max_examples=60)
@given(step=steps(with_spans=True), window=windows)
def test_image_spans_are_bidirectional_within_the_window(step, window):
    assert_close(step.run(window), step.reference(window))


@settings(deadline=None, max_examples=15)
@given(step=steps(with_spans=True), some=windows, other=windows)
def test_layers_with_different_windows_share_one_batch(step, some, other):
    """As in models that mix sliding and full attention: the plan built by one layer must not leak into another."""
    assert_close(step.run(some), step.reference(some))
    assert_close(step.run(other), step.reference(other))


@settings(deadline=None, max_examples=20)
@given(step=steps(with_spans=False))
def test_only_the_slots_of_the_new_tokens_are_written(step):
    before = step.key_pool.clone(), step.value_pool.clone()
    step.run()
    untouched = torch.ones(len(step.key_pool), dtype=torch.bool)
    untouched[step.batch.slots] = False
    for pool, old in zip((step.key_pool, step.value_pool), before, strict=True):
        torch.testing.assert_close(pool[untouched], old[untouched], rtol=0, atol=0, equal_nan=True)
        assert pool[step.batch.slots].isfinite().all()


@settings(deadline=None, max_examples=20)
@given(step=steps(with_spans=True), window=windows, poison=st.sampled_from([math.nan, math.inf, 1e30]))
def test_slots_of_others_and_the_dummy_block_are_never_read(step, window, poison):
    foreign = torch.ones(len(step.key_pool), dtype=torch.bool)
    foreign[step.owned] = False
    assert foreign[-step.block_size :].all(), "the dummy block is nobody's"
    step.key_pool[foreign], step.value_pool[foreign] = poison, poison
    assert_close(step.run(window), step.reference(window))


def test_the_answer_to_a_request_does_not_depend_on_its_place_in_the_batch():
    shapes = [Row(17, 1), Row(0, 9), Row(30, 1), Row(5, 6), Row(2, 1)]
    step = make_step(shapes)
    together = step.run()
    for index, row in enumerate(shapes):
        start, end = step.batch.q_starts[index : index + 2]
        alone = AttentionBatch(
            step.batch.slots[start:end], step.batch.block_tables[index : index + 1], [0, row.new], [row.length]
        )
        out = paged_attention(
            step.query[start:end],
            step.keys[index][row.past :],
            step.values[index][row.past :],
            step.key_pool,
            step.value_pool,
            alone,
            block_size=step.block_size,
            scale=HEAD_DIM**-0.5,
        )
        torch.testing.assert_close(out, together[start:end], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("new", [1, 7])
def test_bfloat16_stays_within_its_own_precision(new):
    step = make_step([Row(20, new), Row(33, 1), Row(0, 5)])
    expected = step.reference()
    for name in ("query", "key_pool", "value_pool"):
        setattr(step, name, getattr(step, name).bfloat16())
    step.keys, step.values = ([tensor.bfloat16() for tensor in one] for one in (step.keys, step.values))
    out = step.run()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, rtol=0.05, atol=0.03)


def test_the_last_block_of_a_pool_is_not_counted_as_usable():
    pool = torch.zeros(3, 5 * 16, 2, HEAD_DIM)
    cache = KVCache(pool, pool, block_size=16)
    assert (cache.num_layers, cache.num_blocks) == (3, 4)
