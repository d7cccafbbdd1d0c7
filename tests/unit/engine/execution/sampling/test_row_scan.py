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
from foveal.engine.execution.sampling.row_scan import Candidates, find_candidates

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


def _find(logits: torch.Tensor, *params: SamplingParams) -> Candidates:
    return find_candidates(logits.numpy(), params, window=8.0, most=4096, threads=1)


def test_usual_rows_are_settled_by_the_scan() -> None:
    # As peaked as a language model's: a few hundred tokens within 8 nats.
    logits = _logits(2, 2.0, 1)
    found = _find(
        logits, SamplingParams(temperature=0.7, top_p=0.9), SamplingParams(temperature=0.7, top_k=40, top_p=0.9)
    )
    assert found.settled.all()


@pytest.mark.parametrize("spread", [0.0, 0.01, float("nan")])
def test_flat_rows_and_nan_are_left_to_the_matrix(spread: float) -> None:
    assert not _find(_logits(1, spread, 2), SamplingParams(temperature=1.0)).settled.any()


def test_forbidden_tokens_are_never_candidates() -> None:
    logits = _logits(1, 4.0, 3)
    logits[logits > 8.0] = float("-inf")
    found = _find(logits, SamplingParams(temperature=1.0))
    row = logits[0].double().numpy()
    assert np.isfinite(row[found.tokens]).all()
    head, everything = np.exp(found.logits).sum(), np.exp(row).sum()
    assert head + np.exp(found.log_tail[0]) == pytest.approx(everything, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.lists(PARAMS, min_size=2, max_size=6), st.integers(0, 1000))
def test_a_row_is_settled_alike_alone_and_among_others(options: list[dict[str, Any]], seed: int) -> None:
    params = [SamplingParams(**option) for option in options]
    logits = _logits(len(params), 3.0, seed)
    together = _find(logits, *params)
    for i, one in enumerate(params):
        alone = _find(logits[i : i + 1], one)
        start = together.counts[:i].sum()
        own = slice(start, start + together.counts[i])
        assert alone.settled[0] == together.settled[i]
        if not alone.settled[0]:
            continue
        assert alone.tokens.tolist() == together.tokens[own].tolist()
        assert alone.logits.tolist() == together.logits[own].tolist()
        assert (alone.threshold[0], alone.log_tail[0]) == (together.threshold[i], together.log_tail[i])
