"""Grouping keeps padding within its bound and loses nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.kernels.length_groups import BUCKET, MAX_WASTE, group_by_length, round_up

lengths = st.lists(st.integers(1, 300), max_size=40)


@given(lengths)
def test_groups_partition_the_sequences(values):
    groups = group_by_length(values)
    assert sorted(member for group in groups for member in group.members) == list(range(len(values)))


@given(lengths)
def test_every_member_fits_its_group_and_is_listed_shortest_first(values):
    for group in group_by_length(values):
        own = [values[member] for member in group.members]
        assert own == sorted(own)
        assert own[-1] <= group.padded_length < own[-1] + BUCKET


@given(lengths)
def test_padded_lengths_are_multiples_of_the_bucket(values):
    for group in group_by_length(values):
        if len({values[member] for member in group.members}) > 1:
            assert group.padded_length % BUCKET == 0


@given(st.integers(1, 300), st.integers(1, 20))
def test_equal_lengths_form_one_group_without_padding(length, count):
    [group] = group_by_length([length] * count)
    assert (group.padded_length, len(group.members)) == (length, count)


@given(lengths)
def test_no_group_of_several_wastes_more_than_the_bound(values):
    for group in group_by_length(values):
        cells = group.padded_length * len(group.members)
        if len(group.members) > 1:
            assert 1 - sum(values[member] for member in group.members) / cells <= MAX_WASTE


@pytest.mark.parametrize(("shorter", "num_groups"), [(10, 1), (9, 2)])
def test_a_group_is_split_just_above_thirty_percent_padding(shorter, num_groups):
    # Of 2 x 24 cells 14 (29 %) or 15 (31 %) would be padding.
    assert len(group_by_length([shorter, 24])) == num_groups


@given(st.integers(0, 1000), st.integers(1, 64))
def test_round_up_gives_the_next_multiple(length, multiple):
    rounded = round_up(length, multiple)
    assert rounded % multiple == 0
    assert length <= rounded < length + multiple
