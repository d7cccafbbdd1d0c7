"""Tokens of images of an unknown family are learnt from usage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.gateway.pricing.learnt_images import LearntImages
from foveal.gateway.pricing.rules.registry import make_rule


def test_a_size_that_was_seen_has_its_own_price() -> None:
    images = LearntImages()
    images.learn(640, 480, "auto", 300)
    images.learn(640, 480, "low", 85)

    assert images.estimate(640, 480, "auto") == 300
    assert images.estimate(640, 480, "low") == 85


def test_one_strange_answer_does_not_change_a_price() -> None:
    images = LearntImages()
    for tokens in (300, 300, 9000, 301, 299):
        images.learn(640, 480, "auto", tokens)

    assert images.estimate(640, 480, "auto") == 300


@pytest.mark.parametrize("family", ["qwen2_5_vl", "pixtral", "llava", "idefics3", "internvl"])
def test_sizes_in_between_follow_from_the_sizes_seen(family: str) -> None:
    """The median error over unseen sizes, after 200 images of mixed sizes."""
    rule, images, source = make_rule(family, {}), LearntImages(), random.Random(3)

    def size() -> tuple[int, int]:
        width = source.randint(200, 2400)
        return width, round(width / source.choice([1.0, 1.33, 0.75, 1.78]))

    for _ in range(200):
        width, height = size()
        images.learn(width, height, "auto", rule.work(width, height, False).num_tokens)
    errors = []
    for _ in range(200):
        width, height = size()
        errors.append(abs(images.estimate(width, height, "auto") / rule.work(width, height, False).num_tokens - 1))

    assert sorted(errors)[100] < 0.25


def test_an_image_of_unknown_size_costs_what_the_usual_one_does() -> None:
    images = LearntImages()
    assert images.estimate(0, 0, "auto") == 512
    for tokens in (100, 200, 300):
        images.learn(500, 500 + tokens, "auto", tokens)

    assert images.estimate(0, 0, "auto") == 200


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000), st.floats(allow_nan=True)), max_size=20),
    st.integers(0, 9000),
    st.integers(0, 9000),
)
def test_an_estimate_is_within_what_was_seen(seen: list[tuple[int, int, float]], width: int, height: int) -> None:
    images = LearntImages()
    for seen_width, seen_height, tokens in seen:
        images.learn(seen_width, seen_height, "auto", min(tokens, 1e6) if tokens == tokens else tokens)

    assert 0 <= images.estimate(width, height, "auto") <= 1_000_000


def test_memory_is_bounded() -> None:
    images = LearntImages()
    for width in range(1, 5000):
        images.learn(width, 100, "auto", 10)

    assert len(images._sizes) == 1024
