"""Native paged attention equals the torch reference, for any mix of prompts and single tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

native = pytest.importorskip("foveal.kernels._native", reason="the native kernels were not built")

from foveal.engine.execution.proposers.base import MOST_DRAFT_TOKENS  # noqa: E402
from foveal.kernels.attention_batch import AttentionBatch, KVCache  # noqa: E402
from foveal.kernels.native.kv_pool import NativePool, step_arrays  # noqa: E402
from foveal.kernels.paged_attention import paged_attention  # noqa: E402

BLOCK = 4


@pytest.fixture(params=native.available_instruction_sets(), autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


class Case:
    """Requests (cached tokens, new tokens) over a pool whose blocks lie in random order."""

    def __init__(self, requests: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = [cached + new for cached, new in requests]
        blocks = [-(-length // BLOCK) for length in lengths]
        order = torch.randperm(sum(blocks) + 1, generator=generator).tolist()
        tables = torch.zeros(len(requests), max(blocks), dtype=torch.int64)
        slots, q_starts = [], [0]
        for row, (cached, new) in enumerate(requests):
            tables[row, : blocks[row]] = torch.tensor([order.pop() for _ in range(blocks[row])])
            positions = torch.arange(cached, cached + new)
            slots.append(tables[row, positions // BLOCK] * BLOCK + positions % BLOCK)
            q_starts.append(q_starts[-1] + new)
        tokens = q_starts[-1]
        shape = (1, (sum(blocks) + 2) * BLOCK, kv_heads, head_dim)
        self.key, self.value = (torch.randn(shape, generator=generator) for _ in range(2))
        self.new = [torch.randn(tokens, n, head_dim, generator=generator) for n in (heads, kv_heads, kv_heads)]
        self.batch = AttentionBatch(torch.cat(slots), tables, q_starts, lengths)
        self.scale = head_dim**-0.5

    def reference(self, window: int | None, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, new_key, new_value = self.new
        return paged_attention(
            query, new_key, new_value, key[0], value[0], self.batch,
            block_size=BLOCK, scale=self.scale, sliding_window=window,
        )  # fmt: skip

    def native(self, window: int | None, cache: KVCache, threads: int) -> torch.Tensor:
        query, new_key, new_value = self.new
        out = torch.empty_like(query)
        slots, tables, q_starts, kv_lens, ends = step_arrays(self.batch)
        native.paged_attention(
            NativePool().of(cache), 0, (query * self.scale).numpy(), new_key.numpy(), new_value.numpy(),
            slots, tables, q_starts, kv_lens, ends, window or 0, out.numpy(), threads,
        )  # fmt: skip
        return out


MIXES = [[(0, 1)], [(5, 1), (130, 1), (0, 3)], [(0, 40)], [(70, 33), (12, 1), (0, 9), (200, 2)], [(3, 100), (64, 64)]]


@pytest.mark.parametrize("requests", MIXES)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (4, 4, 20), (10, 2, 128), (2, 1, 48)])
@pytest.mark.parametrize("window", [None, 17])
def test_float_attention_is_the_references(
    requests: list[tuple[int, int]], heads: int, kv_heads: int, head_dim: int, window: int | None
) -> None:
    case = Case(requests, heads, kv_heads, head_dim, len(requests))
    cache = KVCache(case.key.clone(), case.value.clone(), BLOCK)
    found = case.native(window, cache, threads=2)
    expected = case.reference(window, case.key, case.value)
    assert torch.allclose(found, expected, rtol=1e-4, atol=2e-5)
    # The reference has written the new keys and values into its pool: ours must hold the same.
    assert torch.equal(cache.key, case.key)
    assert torch.equal(cache.value, case.value)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 45)), min_size=1, max_size=4),
    st.sampled_from([None, 1, 8, 64]),
    st.integers(1, 3),
)
def test_any_batch_is_the_references(requests: list[tuple[int, int]], window: int | None, threads: int) -> None:
    case = Case(requests, 6, 2, 32, 7)
    found = case.native(window, KVCache(case.key.clone(), case.value.clone(), BLOCK), threads)
    assert torch.allclose(found, case.reference(window, case.key, case.value), rtol=1e-4, atol=2e-5)


def test_image_spans_see_to_their_end() -> None:
    case = Case([(0, 30), (10, 12)], 4, 2, 32, 3)
    spans = torch.full((30,), -1)
    spans[4:15], spans[15:20] = 0, 1
    case.batch.span_ids = [spans, None]
    found = case.native(None, KVCache(case.key.clone(), case.value.clone(), BLOCK), 2)
    assert torch.allclose(found, case.reference(None, case.key, case.value), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("requests", MIXES)
def test_an_int8_pool_gives_attention_over_its_rounded_keys_and_values(requests: list[tuple[int, int]]) -> None:
    case = Case(requests, 6, 2, 64, 11)

    def codes(pool: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = pool.abs().amax(-1) / 127
        return (pool / scale[..., None]).round().to(torch.int8), scale

    key, key_scale = codes(case.key)
    value, value_scale = codes(case.value)
    cache = KVCache(key, value, BLOCK, key_scale, value_scale)
    found = case.native(None, cache, 2)
    # After the call the pool holds the new tokens too; the reference reads what the codes stand for.
    full_key, full_value = key * key_scale[..., None], value * value_scale[..., None]
    slots = case.batch.slots
    case.new[1], case.new[2] = full_key[0, slots], full_value[0, slots]
    assert torch.allclose(found, case.reference(None, full_key, full_value), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("requests", MIXES)
@pytest.mark.parametrize("head_dim", [64, 20, 128])
def test_a_float16_pool_gives_attention_over_its_rounded_keys_and_values(
    requests: list[tuple[int, int]], head_dim: int
) -> None:
    case = Case(requests, 6, 2, head_dim, 13)
    key, value = case.key.half(), case.value.half()
    cache = KVCache(key.clone(), value.clone(), BLOCK)
    found = case.native(None, cache, 2)
    slots = case.batch.slots
    key[0, slots], value[0, slots] = case.new[1].half(), case.new[2].half()
    assert torch.equal(cache.key, key)
    assert torch.equal(cache.value, value)
    case.new[1], case.new[2] = key[0, slots].float(), value[0, slots].float()
    expected = case.reference(None, key.float(), value.float())
    assert torch.allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_a_float16_pool_rounds_as_torch_does_and_never_holds_an_infinity() -> None:
    case = Case([(0, 1)], 1, 1, 64, 1)
    sizes = torch.tensor(
        [0.0, -0.0, 1e-9, 2.0**-25, 2.0**-24, 3e-8, 6.1e-5, 2.0**-14, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 65504.0, -65519.0]
    )
    keys = torch.randn(64) * torch.logspace(-9, 4, 64)
    keys[: len(sizes)], keys[-2:] = sizes, torch.tensor([1e6, -1e30])
    case.new[1] = keys[None, None].contiguous()
    cache = KVCache(case.key.half(), case.value.half(), BLOCK)
    case.native(None, cache, 1)
    assert torch.equal(cache.key[0, case.batch.slots[0], 0], keys.clamp(-65504, 65504).half())


def test_a_single_token_gives_the_same_bits_alone_and_in_any_batch() -> None:
    case = Case([(100, 1), (37, 1), (0, 50)], 6, 2, 64, 5)
    together = case.native(None, KVCache(case.key.clone(), case.value.clone(), BLOCK), 2)
    batch, new = case.batch, case.new
    case.batch = AttentionBatch(batch.slots[:1], batch.block_tables[:1], [0, 1], batch.kv_lens[:1])
    case.new = [tensor[:1].contiguous() for tensor in new]
    alone = case.native(None, KVCache(case.key.clone(), case.value.clone(), BLOCK), 1)
    assert torch.equal(together[:1], alone)


@pytest.mark.parametrize("guesses", [1, 7, MOST_DRAFT_TOKENS])
def test_verified_guesses_give_the_same_bits_as_one_token_at_a_time(guesses: int) -> None:
    cached, new = 100, guesses + 1
    case = Case([(cached, new)], 6, 2, 64, 5)
    together = case.native(None, KVCache(case.key.clone(), case.value.clone(), BLOCK), 2)
    batch, tensors = case.batch, case.new
    cache = KVCache(case.key.clone(), case.value.clone(), BLOCK)
    for at in range(new):
        case.batch = AttentionBatch(batch.slots[at : at + 1], batch.block_tables, [0, 1], [cached + at + 1])
        case.new = [tensor[at : at + 1].contiguous() for tensor in tensors]
        assert torch.equal(together[at : at + 1], case.native(None, cache, 2))


def test_a_block_outside_the_pool_is_refused_before_memory_is_touched() -> None:
    case = Case([(3, 2)], 2, 1, 16, 1)
    case.batch.block_tables[0, 0] = 10_000
    with pytest.raises(ValueError, match="outside the pool"):
        case.native(None, KVCache(case.key, case.value, BLOCK), 1)
