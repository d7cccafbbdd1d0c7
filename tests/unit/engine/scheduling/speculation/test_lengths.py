"""How many tokens to draft: the rule for the length, the acceptance, when to try again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from foveal.engine.scheduling.speculation.acceptance import AcceptanceRate
from foveal.engine.scheduling.speculation.draft_control import FIRST_TRIAL_AFTER, DraftControl
from foveal.engine.scheduling.speculation.draft_length import DraftLength
from foveal.engine.scheduling.speculation.trials import Trials


def test_length_starts_at_four_and_grows_to_the_limit_while_drafts_are_right() -> None:
    length = DraftLength(8)
    seen = [length.tokens]
    for _ in range(10):
        length.observe(length.tokens, length.tokens)
        seen.append(length.tokens)
    assert seen[0] == 4
    assert seen == sorted(seen)
    assert max(b - a for a, b in pairwise(seen)) == 1
    assert seen[-1] == 8


def test_length_shrinks_to_two_while_drafts_are_wrong_and_no_further() -> None:
    length = DraftLength(8)
    for _ in range(20):
        length.observe(length.tokens, 0)
    assert length.tokens == 2


@pytest.mark.parametrize("accepted", [2, 3])
def test_length_stays_between_the_two_thresholds(accepted: int) -> None:
    length = DraftLength(8)
    for _ in range(30):
        length.observe(4, accepted)
    assert length.tokens == 4


def test_only_the_last_ten_rounds_count() -> None:
    length = DraftLength(8)
    for _ in range(50):
        length.observe(4, 0)
    for _ in range(10):
        length.observe(4, 4)
    assert length.tokens > 2


@pytest.mark.parametrize("most", [1, 2, 3])
def test_length_never_leaves_a_narrow_range(most: int) -> None:
    length = DraftLength(most)
    for accepted in [0] * 12 + [1] * 30:
        length.observe(1, accepted)
        assert min(2, most) <= length.tokens <= most


def test_acceptance_is_the_share_of_tested_tokens_and_not_of_drafted_ones() -> None:
    """One right, the second wrong, six never tested: the chance of a token is 1/2, not 1/8."""
    rate = AcceptanceRate()
    for _ in range(200):
        rate.observe(8, 1)
    assert rate.value == pytest.approx(0.5, abs=0.03)


def test_a_new_request_starts_from_the_acceptance_of_the_others() -> None:
    shared = AcceptanceRate(decay=0.98)
    for _ in range(100):
        AcceptanceRate(shared).observe(4, 0)
    assert AcceptanceRate(shared).value < 0.05


def test_drafts_that_are_off_are_tried_again_after_ever_longer_waits() -> None:
    control = DraftControl(8, AcceptanceRate())
    waits = []
    for _ in range(5):
        waited = 0
        while not control.trial:
            control.decline()
            waited += 1
        waits.append(waited)
        control.observe(control.trial, 0)
    assert waits == [16, 32, 64, 128, 128]


def test_a_trial_that_succeeds_makes_the_next_wait_short_again() -> None:
    control = DraftControl(8, AcceptanceRate())
    for outcome in (0, 0, 2):
        while not control.trial:
            control.decline()
        control.observe(2, outcome)
    for _ in range(FIRST_TRIAL_AFTER):
        assert not control.trial
        control.decline()
    assert control.trial == 2


def test_shared_trials_come_once_for_all_requests_and_ever_more_rarely() -> None:
    trials = Trials(first=4, last=16)
    controls = [DraftControl(8, AcceptanceRate(), trials) for _ in range(2)]
    offers_between = []
    for _ in range(4):
        count = 0
        while not controls[0].trial:
            controls[count % 2].decline()
            count += 1
        assert controls[1].trial
        controls[0].observe(drafted=2, accepted=0)
        assert not controls[1].trial
        offers_between.append(count)
    assert offers_between == [4, 8, 16, 16]
    controls[0].observe(drafted=2, accepted=2)
    for _ in range(4):
        controls[1].decline()
    assert controls[0].trial
