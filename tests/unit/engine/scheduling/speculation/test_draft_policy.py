"""Which drafts pay, from what steps and guesses cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foveal.engine.scheduling.speculation.draft_policy import Candidate, choose_lengths, net_gain
from foveal.engine.scheduling.speculation.step_cost import StepCost


def linear_cost(fixed_s: float, per_token_s: float) -> StepCost:
    """One reading of each of the sizes that are told apart, up to 640 tokens."""
    cost = StepCost()
    for tokens in (*range(1, 33), *range(34, 65, 2), *range(68, 129, 4), *range(160, 641, 32)):
        cost.observe(tokens, fixed_s + per_token_s * tokens)
    return cost


def offer(rate: float, length: int, price: float = 0.0, trial: int = 0) -> Candidate:
    return Candidate((rate,) * length, (price,) * length, trial)


def throughput(lengths: list[int], candidates: list[Candidate], num_rows: int, fixed_s: float, per_s: float) -> float:
    tokens, seconds = float(num_rows), fixed_s + per_s * (num_rows + sum(lengths))
    plain = fixed_s + per_s * num_rows
    for length, candidate in zip(lengths, candidates, strict=True):
        chance = 1.0
        for rate, price in zip(candidate.rates[:length], candidate.prices, strict=False):
            chance *= rate
            tokens += chance
            seconds += price * plain
    return tokens / seconds


@given(
    rates=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6),
    fixed_ms=st.floats(0.1, 50),
    per_token_ms=st.floats(0.01, 20),
    price=st.sampled_from([0.0, 0.02, 0.2]),
)
def test_a_step_with_drafts_always_promises_more_than_one_without(
    rates: list[float], fixed_ms: float, per_token_ms: float, price: float
) -> None:
    """For costs that are linear in tokens, where the promise can be computed exactly."""
    candidates = [offer(rate, 8, price) for rate in rates]
    cost = linear_cost(fixed_ms, per_token_ms)
    lengths = choose_lengths(candidates, len(rates), cost)
    chosen = throughput(lengths, candidates, len(rates), fixed_ms, per_token_ms)
    plain = throughput([0] * len(rates), candidates, len(rates), fixed_ms, per_token_ms)
    assert chosen >= plain * 0.999999
    if sum(lengths):
        assert chosen > plain


def test_free_verification_takes_everything_and_dear_verification_nothing() -> None:
    candidates = [offer(0.7, 8)]
    assert choose_lengths(candidates, 1, linear_cost(10.0, 0.0)) == [8]
    assert choose_lengths(candidates, 1, linear_cost(0.0, 10.0)) == [0]


def test_a_doubtful_draft_is_cut_where_the_next_token_no_longer_pays() -> None:
    cost = linear_cost(9.0, 1.0)  # a further token takes a tenth of a plain step
    assert choose_lengths([offer(0.5, 8)], 1, cost) == [2]  # 1.75 tokens in 1.2 beat 1.875 in 1.3 and 1.5 in 1.1


def test_drafting_stops_as_the_batch_fills() -> None:
    """The same drafts, the same machine: more requests share a step, so a token saves each of them less of it."""
    cost = linear_cost(9.0, 1.0)
    totals = [sum(choose_lengths([offer(0.6, 4)] * rows, rows, cost)) / rows for rows in (1, 4, 16, 64)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 0
    assert totals[-1] == 0


def test_a_jump_in_the_price_of_a_step_is_not_jumped_over_in_vain() -> None:
    """Up to 3 tokens take what 1 takes, 4 and more take twice as long."""
    cost = StepCost()
    for tokens in range(1, 12):
        cost.observe(tokens, 1.0 if tokens <= 3 else 2.0)
    assert choose_lengths([offer(0.6, 8)], 1, cost) == [2]
    assert choose_lengths([offer(0.95, 8)], 1, cost) == [8]


def test_a_hopeless_request_does_not_ride_on_a_good_one() -> None:
    cost = linear_cost(9.0, 1.0)
    assert choose_lengths([offer(0.95, 4), offer(0.05, 4)], 2, cost) == [4, 0]


def test_a_trial_is_granted_though_it_does_not_pay_but_not_where_nothing_would() -> None:
    assert choose_lengths([offer(0.05, 4, trial=2)], 1, linear_cost(9.0, 1.0)) == [2]
    assert choose_lengths([offer(0.05, 4, trial=2)], 1, linear_cost(0.0, 10.0)) == [0]


def test_a_draft_models_own_time_counts() -> None:
    cost = linear_cost(9.0, 0.1)
    assert choose_lengths([offer(0.5, 4, price=0.6)], 1, cost) == [0]
    assert choose_lengths([offer(0.5, 4, price=0.01)], 1, cost) == [4]
    assert net_gain(offer(0.5, 4, price=0.6), 1, cost) < 0 < net_gain(offer(0.5, 4, price=0.01), 1, cost)


def test_nothing_on_offer_is_nothing_chosen() -> None:
    assert choose_lengths([], 3, StepCost()) == []
    assert choose_lengths([offer(0.5, 0)], 1, StepCost()) == [0]
