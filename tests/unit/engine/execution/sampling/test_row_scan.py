"""Rows scanned one by one give the tokens that the operations over the whole matrix give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.draw import GumbelDraw
from foveal.engine.execution.sampling.filters import thresholds
from foveal.engine.execution.sampling.random_stream import draw_key
from foveal.engine.execution.sampling.row_scan import RowScan

VOCAB = 5000
PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.9]),
        "top_k": st.sampled_from([0, 0, 1, 5, 100]),
        "top_p": st.sampled_from([1.0, 1.0, 0.2, 0.9]),
        "min_p": st.sampled_from([0.0, 0.0, 0.02]),
    }
)


def _logits(rows: int, spread: float, seed: int) -> torch.Tensor:
    return spread * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(st.lists(PARAMS, min_size=1, max_size=5), st.sampled_from([2.0, 4.0, 8.0]), st.integers(0, 1000))
def test_a_scanned_row_yields_what_the_matrix_yields(options: list[dict[str, Any]], spread: float, seed: int) -> None:
    params = [SamplingParams(**option) for option in options]
    logits = _logits(len(params), spread, seed)
    keys = [[draw_key(seed + i, choice, 3) for choice in range(1 + i % 2)] for i in range(len(params))]
    draw = GumbelDraw(VOCAB)
    scanned = draw.draw_scanned(logits, params, keys)
    scaled = logits / torch.tensor([p.temperature for p in params]).unsqueeze(1)
    whole = draw.draw(scaled, thresholds(scaled, params), keys)
    for found, expected in zip(scanned, whole, strict=True):
        assert found is None or found == expected


def test_usual_rows_are_settled_by_the_scan() -> None:
    # As peaked as a language model's: a few hundred tokens within 8 nats.
    logits = _logits(40, 2.0, 1)
    scan = RowScan(VOCAB, 8.0, 4096)
    for params in (SamplingParams(temperature=0.7, top_p=0.9), SamplingParams(temperature=0.7, top_k=40)):
        assert all(scan.scan(row, params) is not None for row in logits.numpy())


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_a_flat_row_is_left_to_the_matrix(spread: float) -> None:
    scan = RowScan(VOCAB, 8.0, 4096)
    assert scan.scan(_logits(1, spread, 2)[0].numpy(), SamplingParams(temperature=1.0)) is None


def test_a_row_of_nan_is_left_to_the_matrix() -> None:
    scan = RowScan(VOCAB, 8.0, 4096)
    assert scan.scan(np.full(VOCAB, np.nan, dtype=np.float32), SamplingParams(temperature=1.0)) is None


def test_forbidden_tokens_are_never_candidates() -> None:
    row = _logits(1, 4.0, 3)[0].numpy()
    row[row > 8.0] = -np.inf
    found = RowScan(VOCAB, 8.0, 4096).scan(row, SamplingParams(temperature=1.0))
    assert found is not None
    assert np.isfinite(row[found.tokens]).all()
    head, everything = np.exp(found.logits).sum(), np.exp(row.astype(np.float64)).sum()
    assert head + np.exp(found.log_tail) == pytest.approx(everything, rel=1e-4)
