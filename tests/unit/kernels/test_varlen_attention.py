"""Grouped attention over packed segments equals a loop over the segments."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.kernels import varlen_attention as module
from foveal.kernels.length_groups import BUCKET, MAX_WASTE
from foveal.kernels.varlen_attention import varlen_attention


def packed(num_tokens: int, *, heads: int = 2, head_dim: int = 8, seed: int = 0) -> list[torch.Tensor]:
    """query, key, value [N, H, D]"""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((num_tokens, heads, head_dim), generator=generator) for _ in range(3)]


def segment_loop(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """The reference, in float64."""
    out = []
    for q, k, v in zip(*(tensor.double().split(lengths) for tensor in (query, key, value)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    return torch.cat(out)


def run(tensors: list[torch.Tensor], lengths: tuple[int, ...]) -> torch.Tensor:
    return varlen_attention(*tensors, lengths, scale=tensors[0].shape[-1] ** -0.5)


@settings(deadline=None, max_examples=80)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple),
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([4, 8, 10]),
    seed=st.integers(0, 2**31),
)
def test_grouped_segments_equal_the_loop_over_segments(lengths, heads, head_dim, seed):
    tensors = packed(sum(lengths), heads=heads, head_dim=head_dim, seed=seed)
    torch.testing.assert_close(run(tensors, lengths).double(), segment_loop(*tensors, lengths), rtol=1e-5, atol=1e-5)


def test_segments_do_not_see_each_other():
    lengths = (5, 9, 8)
    tensors = packed(sum(lengths))
    before = run(tensors, lengths)
    for tensor in tensors:
        tensor[5:14] += 1
    after = run(tensors, lengths)
    torch.testing.assert_close(after[:5], before[:5], rtol=0, atol=0)
    torch.testing.assert_close(after[14:], before[14:], rtol=0, atol=0)
    assert not torch.equal(after[5:14], before[5:14])


@pytest.fixture
def call_shapes(monkeypatch):
    """(segments, padded length) of every call that the kernel makes."""
    original, shapes = F.scaled_dot_product_attention, []

    def watching(query, *rest, **options):
        shapes.append((query.shape[0], query.shape[2]))
        return original(query, *rest, **options)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", watching)
    return shapes


@pytest.mark.parametrize(
    ("lengths", "num_calls"),
    [((16,) * 9, 1), ((4,) * 9, 1), ((15, 16, 14), 1), ((64, 8, 63, 7), 2), ((8, 24, 72, 216), 4), ((30,), 1)],
)
def test_similar_segments_share_a_call_and_different_ones_do_not(lengths, num_calls, call_shapes):
    run(packed(sum(lengths)), lengths)
    assert len(call_shapes) == num_calls
    assert 1 - sum(lengths) / sum(count * length for count, length in call_shapes) <= MAX_WASTE


def test_padded_segments_are_computed_in_lengths_of_the_bucket(call_shapes):
    run(packed(13 + 15 + 30 + 29), (13, 30, 15, 29))
    assert call_shapes == [(2, 2 * BUCKET), (2, 4 * BUCKET)]


def test_a_long_run_of_equal_segments_is_computed_where_it_lies(call_shapes, monkeypatch):
    lengths = (5, *(64,) * 6, 9, *(300,), 7)
    tensors = packed(sum(lengths))
    gathered = []
    original = torch.Tensor.index_select
    monkeypatch.setattr(
        torch.Tensor, "index_select", lambda self, dim, index: gathered.append(len(index)) or original(self, dim, index)
    )

    out = run(tensors, lengths)

    assert call_shapes[:2] == [(6, 64), (1, 300)]
    assert max(gathered) < 64, "only the short segments are copied"
    torch.testing.assert_close(out.double(), segment_loop(*tensors, lengths), rtol=1e-5, atol=1e-5)
