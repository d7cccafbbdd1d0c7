"""Spans of image tokens in a prompt."""

from __future__ import annotations

import pytest

from foveal.core.errors import InvalidRequestError
from foveal.models.processing.prompt_layout import find_spans

I = 9  # noqa: E741 - the image token


def spans_of(token_ids, counts):
    return [(s.offset, s.length, s.image_index, s.feature_offset) for s in find_spans(token_ids, I, counts)]


def test_an_image_is_one_span():
    assert spans_of([1, I, I, I, 2], [3]) == [(1, 3, 0, 0)]


def test_neighbouring_images_are_told_apart_by_their_counts():
    assert spans_of([I, I, I, I, I], [2, 3]) == [(0, 2, 0, 0), (2, 3, 1, 0)]


def test_marker_tokens_between_tiles_split_an_image_into_spans_that_continue_its_features():
    assert spans_of([1, I, I, 5, I, I, 6, I], [4, 1]) == [(1, 2, 0, 0), (4, 2, 0, 2), (7, 1, 1, 0)]


def test_a_text_prompt_has_no_spans():
    assert spans_of([1, 2, 3], []) == []


@pytest.mark.parametrize("counts", [[2], [4], []])
def test_a_wrong_number_of_image_tokens_is_refused(counts):
    with pytest.raises(InvalidRequestError, match="the prompt has 3 image tokens"):
        find_spans([I, I, I], I, counts)
