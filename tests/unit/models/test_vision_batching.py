"""Encoder calls hold images that fit together, each image exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.kernels.length_groups import MAX_WASTE, round_up
from foveal.models.image_input import ImageInput
from foveal.models.vision_batching import batch_images


def image(shape: tuple[int, ...], encode_tokens: int) -> ImageInput:
    return ImageInput({"pixel_values": np.empty(shape, np.uint8)}, encode_tokens, encode_tokens, b"")


tiled = st.builds(
    lambda tiles, side: image((tiles, 3, side, side), tiles * side), st.integers(1, 5), st.sampled_from([2, 3])
)
single = st.sampled_from([2, 3]).map(lambda side: image((3, side, side), side))
packed = st.integers(1, 300).map(lambda length: image((length, 2), length))
images = st.lists(st.one_of(tiled, single, packed), max_size=30)
limits = st.integers(1, 600)


def is_packed(one: ImageInput) -> bool:
    return one.arrays["pixel_values"].ndim == 2


@given(images, limits)
def test_every_image_is_encoded_exactly_once(found, limit):
    batches = batch_images(found, max_encode_tokens=limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(found)))
    assert all(batches)


@given(images, limits)
def test_a_call_stays_within_the_token_limit_unless_one_image_exceeds_it(found, limit):
    for batch in batch_images(found, max_encode_tokens=limit):
        assert len(batch) == 1 or sum(found[index].encode_tokens for index in batch) <= limit


@given(images)
def test_images_of_one_call_have_tiles_of_one_shape(found):
    for batch in batch_images(found):
        shapes = {None if is_packed(found[i]) else found[i].arrays["pixel_values"].shape[-3:] for i in batch}
        assert len(shapes) == 1


@given(st.lists(packed, max_size=30))
def test_images_packed_together_waste_at_most_the_bound(found):
    for batch in batch_images(found):
        lengths = [found[index].encode_tokens for index in batch]
        if len(set(lengths)) > 1:
            assert 1 - sum(lengths) / (round_up(max(lengths), 8) * len(lengths)) <= MAX_WASTE


@given(images, limits)
def test_images_of_one_call_keep_the_order_of_the_request(found, limit):
    assert all(batch == sorted(batch) for batch in batch_images(found, max_encode_tokens=limit))


@pytest.mark.parametrize(("count", "limit", "expected"), [(4, 16, [[0, 1], [2, 3]]), (3, 100, [[0, 1, 2]]), (0, 9, [])])
def test_equal_images_fill_a_call_up_to_the_limit(count, limit, expected):
    assert batch_images([image((8, 2), 8)] * count, max_encode_tokens=limit) == expected
