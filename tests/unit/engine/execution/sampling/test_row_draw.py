"""Rows drawn one by one give the tokens that the operations over the whole matrix give, on every instruction set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.draw import GumbelDraw
from foveal.engine.execution.sampling.filters import thresholds
from foveal.engine.execution.sampling.random_stream import DrawKey, draw_key
from foveal.kernels.native.extension import native_kernels

native = native_kernels()
pytestmark = pytest.mark.skipif(native is None, reason="without native kernels all rows are drawn as a matrix")
SETS = [] if native is None else list(native.available_instruction_sets())

VOCAB = 5000
PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.9]),
        "top_k": st.sampled_from([0, 0, 1, 5, 100]),
        "top_p": st.sampled_from([1.0, 1.0, 0.2, 0.9]),
        "min_p": st.sampled_from([0.0, 0.0, 0.02]),
    }
)


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    assert native is not None
    before = native.instruction_set()
    native.use_instruction_set(request.param)
    yield
    native.use_instruction_set(before)


def _logits(rows: int, spread: float, seed: int, vocab: int = VOCAB) -> torch.Tensor:
    return spread * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def _keys(rows: int, seed: int) -> list[list[DrawKey]]:
    return [[draw_key(seed + i, choice, 3) for choice in range(1 + i % 2)] for i in range(rows)]


def _draw(logits: torch.Tensor, *params: SamplingParams, seed: int = 0) -> list[list[int] | None]:
    return GumbelDraw(logits.shape[1]).draw_rows(logits, params, _keys(len(params), seed))


@pytest.mark.usefixtures("instruction_set")
@settings(deadline=None, max_examples=60)
@given(
    st.lists(PARAMS, min_size=1, max_size=5),
    st.sampled_from([2.0, 4.0, 8.0]),
    st.sampled_from([1, 2, 15, 17, 63, 65, 1031, VOCAB]),
    st.sampled_from(["all", "few", "last half"]),
    st.integers(1, 2),
    st.integers(0, 1000),
)
def test_a_row_yields_what_the_matrix_yields(
    options: list[dict[str, Any]], spread: float, vocab: int, allowed: str, threads: int, seed: int
) -> None:
    params = [SamplingParams(**option) for option in options]
    logits = _logits(len(params), spread, seed, vocab)
    if allowed == "few":
        logits[:, torch.arange(vocab) % 7 != seed % 7] = float("-inf")
        logits[:, -1] = 1.0
    elif allowed == "last half":  # as a grammar may leave it
        logits[:, : vocab // 2] = float("-inf")
    keys = _keys(len(params), seed)
    draw = GumbelDraw(vocab)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        by_row = draw.draw_rows(logits, params, keys)
    finally:
        torch.set_num_threads(before)
    scaled = logits / torch.tensor([p.temperature for p in params]).unsqueeze(1)
    whole = draw.draw(scaled, thresholds(scaled, params), keys)
    for found, expected in zip(by_row, whole, strict=True):
        assert found is None or found == expected


@pytest.mark.usefixtures("instruction_set")
def test_usual_rows_need_no_second_look() -> None:
    # As peaked as a language model's: a few hundred tokens within the window.
    some = SamplingParams(temperature=0.7, top_p=0.9), SamplingParams(temperature=0.7, top_k=40, top_p=0.9)
    assert None not in _draw(_logits(2, 2.0, 1), *some)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("spread", [0.0, 0.01, float("nan")])
def test_flat_rows_and_nan_are_left_to_the_matrix(spread: float) -> None:
    assert _draw(_logits(1, spread, 2), SamplingParams(temperature=1.0)) == [None]


@pytest.mark.usefixtures("instruction_set")
def test_one_nan_is_left_to_the_matrix_and_is_never_a_candidate() -> None:
    logits = _logits(2, 4.0, 6)
    best = logits.argmax(dim=1)
    logits[:, VOCAB // 2 + 3] = float("nan")
    every = SamplingParams(temperature=1.0)
    assert _draw(logits, every, SamplingParams(temperature=1.0, top_k=1)) == [None, [best[1].item()] * 2]


@pytest.mark.usefixtures("instruction_set")
def test_a_nucleus_that_ends_exactly_at_a_token_ends_there() -> None:
    logits = torch.full((1, 40), float("-inf"))
    logits[0, :4] = torch.tensor([4.0, 2.0, 1.0, 1.0]).log()
    keys = [[draw_key(1, choice, 0) for choice in range(200)]]
    half = [SamplingParams(temperature=1.0, top_p=0.5)]
    assert GumbelDraw(40).draw_rows(logits, half, keys) == [[0] * 200]


@pytest.mark.usefixtures("instruction_set")
def test_a_row_longer_than_any_vocabulary_is_read_to_its_end() -> None:
    logits = _logits(1, 1.0, 0, 600_001)
    logits[0, -1] = 30.0
    assert _draw(logits, SamplingParams(temperature=1.0)) == [[600_000]]


@pytest.mark.usefixtures("instruction_set")
def test_the_tail_is_drawn_as_often_as_its_weight_says() -> None:
    logits = torch.full((1, 4001), -9.0)
    logits[0, 0] = 0.0
    tail = 4000 * np.exp(-9.0)
    expected = tail / (1.0 + tail)
    draws = 20_000
    keys = [[draw_key(7, choice, 0) for choice in range(draws)]]
    (tokens,) = GumbelDraw(4001).draw_rows(logits, [SamplingParams(temperature=1.0)], keys)
    assert tokens is not None
    share = np.count_nonzero(tokens) / draws
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / draws)


@pytest.mark.usefixtures("instruction_set")
@settings(deadline=None, max_examples=30)
@given(st.lists(PARAMS, min_size=2, max_size=6), st.integers(0, 1000))
def test_a_row_yields_the_same_alone_and_among_others(options: list[dict[str, Any]], seed: int) -> None:
    params = [SamplingParams(**option) for option in options]
    logits, keys = _logits(len(params), 3.0, seed), _keys(len(params), seed)
    draw = GumbelDraw(VOCAB)
    together = draw.draw_rows(logits, params, keys)
    for i, one in enumerate(params):
        assert draw.draw_rows(logits[i : i + 1], [one], keys[i : i + 1]) == [together[i]]
