"""The sampler against HF's logits processors, against its own distribution, and alone against in company."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampler import Sampler, SamplingRow
from foveal.engine.execution.sampling import vocabulary_ops

torch.set_num_threads(1)


def row_of(
    seed: int = 0, prompt: list[int] | None = None, output: list[int] | None = None, **kwargs: Any
) -> SamplingRow:
    extra = {key: kwargs.pop(key) for key in ("choices", "eos_token_ids", "guide") if key in kwargs}
    return SamplingRow(SamplingParams(**kwargs), prompt or [], output or [], seed, **extra)


def random_logits(rows: int, vocab: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn((rows, vocab), generator=torch.Generator().manual_seed(seed)) * scale


def token_ids(result: list[list[Any]]) -> list[list[int]]:
    return [[token.token_id for token in tokens] for tokens in result]


def hf_probabilities(logits: torch.Tensor, row: SamplingRow) -> torch.Tensor:
    p = row.params
    chain = LogitsProcessorList()
    if p.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(p.repetition_penalty))
    chain.append(TemperatureLogitsWarper(p.temperature))
    if p.top_k:
        chain.append(TopKLogitsWarper(p.top_k))
    if p.top_p < 1.0:
        chain.append(TopPLogitsWarper(p.top_p))
    if p.min_p > 0.0:
        chain.append(MinPLogitsWarper(p.min_p))
    ids = torch.tensor([[*row.prompt_token_ids, *row.output_token_ids]])
    return chain(ids, logits.clone()).softmax(-1)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    vocab=st.sampled_from([5, 33, 1500]),
    temperature=st.floats(0.1, 2.0),
    top_k=st.integers(0, 40),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    repetition_penalty=st.floats(0.5, 2.0),
)
def test_distribution_agrees_with_hf_logits_processors(seed: int, vocab: int, **kwargs: Any) -> None:
    logits = random_logits(1, vocab, seed)
    row = row_of(prompt=[0, 1, 1], output=[2, 4], **kwargs)
    ours = Sampler(vocab).probabilities(logits, [row])
    theirs = hf_probabilities(logits, row)
    # A token whose cumulative probability is top_p to the last bit may fall on either side: the two sums round
    # differently. It must then be a single token, the least likely of those that were kept.
    disputed = (ours > 0) != (theirs > 0)
    assert disputed.sum() <= 1
    if disputed.any():
        wider = ours if (ours > 0).sum() > (theirs > 0).sum() else theirs
        assert wider[disputed].item() == wider[wider > 0].min()
        assert kwargs["top_p"] < 1.0
        ours, theirs = (p.masked_fill(disputed, 0.0) / p.masked_fill(disputed, 0.0).sum() for p in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("vocab", [7, 3000, 12000])
def test_nucleus_wider_than_the_first_look_agrees_with_hf(vocab: int) -> None:
    logits = random_logits(1, vocab, scale=0.01)
    row = row_of(top_p=0.95)
    assert torch.equal(Sampler(vocab).probabilities(logits, [row]) > 0, hf_probabilities(logits, row) > 0)


def test_tokens_that_tie_at_a_threshold_stay_together() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0, 0.0, -1.0]])
    sampler = Sampler(5)
    for row in (row_of(top_k=2), row_of(top_p=0.5), row_of(min_p=math.exp(-1.0) * 0.999)):
        kept = sampler.probabilities(logits, [row])[0] > 0
        assert kept.tolist() == [True, True, True, True, False]


def test_greedy_is_the_argmax_and_the_lowest_id_wins_a_tie() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    plain = [row_of(temperature=0.0), row_of(temperature=0.0)]
    assert token_ids(Sampler(4).sample(logits, plain)) == [[1], [0]]
    mixed = [row_of(temperature=0.0, logprobs=0), row_of(temperature=1e-6)]
    assert token_ids(Sampler(4).sample(logits, mixed)) == [[1], [0]]


MIXED = [
    {"temperature": 1.0},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 0.9, "top_k": 50, "top_p": 0.8, "min_p": 0.01, "logprobs": 3},
    {"temperature": 1.0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.3},
    {"temperature": 0.0, "repetition_penalty": 1.5, "logprobs": 2},
    {"temperature": 2.0, "top_p": 0.99},
]


@pytest.mark.parametrize("vocab", [97, 5003])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_row_yields_the_same_alone_as_in_any_batch(vocab: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    try:
        sampler = Sampler(vocab)
        logits = random_logits(4 * len(MIXED), vocab, scale=1.0)
        rows = [
            row_of(seed=i, prompt=[1, 2, i], output=[3] * (i % 5), **MIXED[i % len(MIXED)]) for i in range(len(logits))
        ]
        together = sampler.sample(logits, rows)
        for i, row in enumerate(rows):
            assert sampler.sample(logits[i : i + 1], [row]) == [together[i]]
        half = list(range(0, len(rows), 2))[::-1]
        assert sampler.sample(logits[half], [rows[i] for i in half]) == [together[i] for i in half]
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 6}, {"top_p": 0.9}, {"min_p": 0.05, "temperature": 1.5}])
def test_sampled_tokens_follow_the_distribution(kwargs: dict[str, Any]) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -3.0]])
    sampler = Sampler(8)
    draws, choices = 8000, 16
    counts: Counter[int] = Counter()
    for position in range(draws // choices):
        row = row_of(seed=5, output=[0] * position, choices=tuple(range(choices)), **kwargs)
        counts.update(token for tokens in token_ids(sampler.sample(logits, [row])) for token in tokens)
    expected = (sampler.probabilities(logits, [row_of(**kwargs)])[0] * draws).tolist()
    assert all(counts[i] == 0 for i, e in enumerate(expected) if e == 0)
    statistic = sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected) if e > 0)
    assert statistic < 30  # chi-square, at most 7 degrees of freedom: p < 1e-4; the draws are fixed by the seed


@pytest.mark.parametrize(("level", "kwargs"), [(-7.9, {}), (-8.5, {}), (-7.9, {"min_p": 1e-4})])
def test_a_large_vocabulary_is_drawn_from_its_head_and_its_tail_alike(level: float, kwargs: dict[str, Any]) -> None:
    vocab, draws, choices = 6000, 6400, 16
    logits = torch.full((1, vocab), level)
    logits[0, 10], logits[0, 5990] = 0.0, -1.0
    logits[0, :3] = -12.0 if kwargs else float("-inf")
    sampler = Sampler(vocab)
    counts: Counter[int] = Counter()
    for position in range(draws // choices):
        row = row_of(seed=1, output=[0] * position, choices=tuple(range(choices)), **kwargs)
        counts.update(token_ids(sampler.sample(logits, [row]))[0])
    groups = [range(3), [10], [5990], range(11, 1500), range(1500, 3000), range(3000, 5990), range(5991, 6000)]
    probabilities = sampler.probabilities(logits, [row_of(**kwargs)])[0]
    expected = [float(probabilities[list(group)].sum()) * draws for group in groups]
    observed = [sum(counts[token] for token in group) for group in groups]
    assert observed[0] == 0
    assert sum((o - e) ** 2 / e for o, e in zip(observed[1:], expected[1:], strict=True)) < 28  # p < 1e-4


@pytest.mark.parametrize("vocab", [97, 5003, 20000])
def test_torch_and_numpy_walk_the_vocabulary_alike(vocab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(vocab)
    logits = random_logits(4 * len(MIXED), vocab, scale=1.0)
    rows = [row_of(seed=i, prompt=[1, i], output=[3] * (i % 5), **MIXED[i % len(MIXED)]) for i in range(len(logits))]
    on_a_cpu = sampler.sample(logits, rows)
    monkeypatch.setattr(vocabulary_ops, "_walk_with_numpy", lambda x: False)
    assert sampler.sample(logits, rows) == on_a_cpu


def test_rounding_of_the_logits_hardly_ever_changes_a_draw() -> None:
    vocab = 1000
    logits = random_logits(1, vocab, scale=1.0)
    rounded = logits * (1 + 1e-6 * random_logits(1, vocab, seed=1))
    sampler = Sampler(vocab)
    for kwargs in ({}, {"top_k": 200}, {"top_p": 0.9}):
        row = row_of(choices=tuple(range(2000)), **kwargs)
        exact, nearly = sampler.sample(logits, [row])[0], sampler.sample(rounded, [row])[0]
        assert sum(a != b for a, b in zip(exact, nearly, strict=True)) <= 1


def test_different_seeds_choices_and_positions_draw_independently() -> None:
    logits = torch.zeros((1, 64))
    sampler = Sampler(64)

    def draw(seed: int, choice: int, position: int) -> int:
        row = row_of(seed=seed, output=[0] * position, choices=(choice,))
        return sampler.sample(logits, [row])[0][0].token_id

    for vary in (lambda i: (i, 0, 0), lambda i: (0, i, 0), lambda i: (0, 0, i), lambda i: (-i, 0, 0)):
        drawn = [draw(*vary(i)) for i in range(640)]
        assert len(set(drawn)) == 64
        repeats = sum(a == b for a, b in itertools.pairwise(drawn))
        assert repeats < 30  # expected 10 of 639


def test_choices_drawn_from_one_row_equal_choices_drawn_one_by_one() -> None:
    logits = random_logits(1, 50, scale=0.5)
    sampler = Sampler(50)
    for kwargs in ({}, {"top_p": 0.95}):
        together = token_ids(sampler.sample(logits, [row_of(seed=9, choices=(0, 1, 2, 3), **kwargs)]))[0]
        single = [sampler.sample(logits, [row_of(seed=9, choices=(c,), **kwargs)])[0][0].token_id for c in range(4)]
        assert together == single
        assert len(set(together)) > 1


def test_presence_and_frequency_penalties_count_output_tokens_only() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    row = row_of(prompt=[3], output=[1, 2, 2], presence_penalty=0.5, frequency_penalty=0.25)
    got = Sampler(4).probabilities(logits, [row])
    expected = torch.tensor([[1.0, 2.0 - 0.75, 3.0 - 1.0, 4.0]]).softmax(-1)
    torch.testing.assert_close(got, expected)


def test_penalties_follow_a_growing_output() -> None:
    sampler, logits = Sampler(40), random_logits(1, 40)
    kept = row_of(prompt=[1], output=[], repetition_penalty=1.4, frequency_penalty=0.7)
    for token in [5, 5, 9, 1, 30, *range(20)]:
        kept.output_token_ids.append(token)  # type: ignore[attr-defined]
        fresh = row_of(prompt=[1], output=list(kept.output_token_ids), repetition_penalty=1.4, frequency_penalty=0.7)
        assert torch.equal(sampler.probabilities(logits, [kept]), sampler.probabilities(logits, [fresh]))


def test_end_and_stop_tokens_are_forbidden_until_min_tokens() -> None:
    logits = torch.tensor([[0.0, 9.0, 8.0, 7.0]])
    params: dict[str, Any] = {"temperature": 0.0, "min_tokens": 2, "stop_token_ids": (2,), "eos_token_ids": (1,)}
    sampler = Sampler(4)
    assert token_ids(sampler.sample(logits, [row_of(output=[0], **params)])) == [[3]]
    assert token_ids(sampler.sample(logits, [row_of(output=[0, 0], **params)])) == [[1]]


def test_logprobs_are_the_models_own_whatever_the_sampling_does() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    raw = logits.log_softmax(-1)[0]
    row = row_of(temperature=0.0, logprobs=2, min_tokens=1, eos_token_ids=(1,), repetition_penalty=1.2, prompt=[2])
    [[token]] = Sampler(4).sample(logits, [row])
    assert token.token_id == 2
    assert token.logprob is not None
    assert token.logprob.rank == 2
    assert token.logprob.logprob == pytest.approx(raw[2].item())
    assert [pair[0] for pair in token.logprob.top] == [1, 2]
    assert token.logprob.top[0][1] == pytest.approx(raw[1].item())


def test_sampling_leaves_the_callers_logits_alone() -> None:
    logits = random_logits(2, 30)
    before = logits.clone()
    rows = [row_of(repetition_penalty=1.5, prompt=[1, 2]), row_of(top_k=3, temperature=0.5)]
    Sampler(30).sample(logits, rows)
    assert torch.equal(logits, before)


def test_bf16_logits_are_accepted() -> None:
    logits = random_logits(3, 30).bfloat16()
    assert token_ids(Sampler(30).sample(logits, [row_of(temperature=0.0)] * 3)) == [
        [i] for i in logits.argmax(1).tolist()
    ]


def test_nan_logits_still_yield_a_valid_token() -> None:
    logits = torch.full((1, 10), float("nan"))
    for kwargs in ({"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.5}):
        assert 0 <= Sampler(10).sample(logits, [row_of(**kwargs)])[0][0].token_id < 10


def test_logits_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 9\), not \(1, 10\)"):
        Sampler(10).sample(torch.zeros(2, 9), [row_of()])
    assert Sampler(10).sample(torch.zeros(0, 10), []) == []
