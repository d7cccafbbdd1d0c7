from __future__ import annotations

import pytest

from foveal.core.errors import IntegrityError
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.vision_budget import VisionBudget
from unit.engine.scheduling.builders import image, request


def encoded(vision: VisionBudget) -> list[bytes]:
    return [item.content_hash for item in vision.end_step()[0]]


def one_image(name: str, content: str, **size: int) -> Request:
    return request(name, [1, image(content, **size), 2])


def test_an_image_is_encoded_once_for_all_requests_that_show_it() -> None:
    vision = VisionBudget(100, 1000)
    vision.begin_step()
    for name in ("a", "b"):
        assert vision.reserve(one_image(name, "cat"), 0, 6) == 6
    assert encoded(vision) == [b"cat"]
    assert (vision.num_queries, vision.num_hits) == (2, 1)


def test_text_before_and_after_an_image_needs_no_features() -> None:
    vision = VisionBudget(100, 1000)
    vision.begin_step()
    item = one_image("a", "cat")
    assert vision.reserve(item, 0, 1) == 1
    assert vision.reserve(item, 5, 6) == 6
    assert encoded(vision) == []
    assert not vision.needs_features(item, 5)


def test_a_chunk_stops_before_an_image_beyond_the_encoder_budget() -> None:
    vision = VisionBudget(20, 1000)
    vision.begin_step()
    item = request("a", [1, image("cat", encode_tokens=16), 2, image("dog", encode_tokens=16), 3])
    assert vision.reserve(item, 0, 11) == 6
    assert encoded(vision) == [b"cat"]
    vision.begin_step()
    assert vision.reserve(item, 6, 11) == 11
    assert encoded(vision) == [b"dog"]


def test_an_image_beyond_the_whole_encoder_budget_is_encoded_alone() -> None:
    vision = VisionBudget(20, 1000)
    huge = one_image("huge", "huge", encode_tokens=50)
    vision.begin_step()
    assert vision.reserve(one_image("a", "cat"), 0, 6) == 6
    assert vision.reserve(huge, 0, 6) == 1
    vision.begin_step()
    assert vision.reserve(huge, 0, 6) == 6


def test_pinned_features_are_not_evicted_and_the_chunk_stops_instead() -> None:
    vision = VisionBudget(100, 250)
    vision.begin_step()
    first, second, third = (one_image(name, name) for name in "abc")
    assert vision.reserve(first, 0, 6) == 6
    assert vision.reserve(second, 0, 6) == 6
    assert vision.reserve(third, 0, 6) == 1
    vision.release_all(first)
    assert vision.reserve(third, 0, 6) == 6
    assert vision.end_step()[1] == (b"a",)


def test_the_oldest_unpinned_feature_is_evicted_first() -> None:
    vision = VisionBudget(100, 200)
    for name in ("a", "b"):
        vision.begin_step()
        item = one_image(name, name)
        vision.reserve(item, 0, 6)
        vision.release_all(item)
    again = one_image("again", "a")
    vision.reserve(again, 0, 6)
    vision.release_all(again)
    vision.begin_step()
    vision.reserve(one_image("c", "c"), 0, 6)
    assert vision.end_step()[1] == (b"b",)


def test_an_image_beyond_the_whole_cache_is_admitted_alone_and_evicted_afterwards() -> None:
    vision = VisionBudget(100, 250)
    huge = one_image("huge", "huge", feature_bytes=400)
    small = one_image("small", "cat")
    vision.begin_step()
    assert vision.reserve(small, 0, 6) == 6
    assert vision.reserve(huge, 0, 6) == 1
    vision.release_all(small)
    assert vision.reserve(huge, 0, 6) == 6
    assert vision.reserve(one_image("b", "dog"), 0, 6) == 1
    vision.release_all(huge)
    vision.end_step()
    vision.begin_step()
    assert vision.end_step()[1] == (b"huge",)
    assert vision.num_bytes == 0


def test_features_stay_pinned_until_committed_tokens_pass_the_last_span() -> None:
    vision = VisionBudget(100, 1000)
    vision.begin_step()
    item = one_image("a", "cat")
    vision.reserve(item, 0, 3)
    item.num_computed_tokens = 3  # in the middle of the image
    vision.release_passed(item)
    assert vision.pinned_bytes == 100
    vision.reserve(item, 3, 6)
    vision.release_passed(item)  # scheduled up to 6, committed up to 3
    assert vision.pinned_bytes == 100
    item.num_computed_tokens = 5
    vision.release_passed(item)
    assert vision.pinned_bytes == 0
    assert b"cat" in vision


def test_an_image_shown_twice_in_one_prompt_is_pinned_until_its_second_showing_is_passed() -> None:
    vision = VisionBudget(100, 1000)
    vision.begin_step()
    item = request("a", [image("cat"), 1, image("cat"), 2])
    vision.reserve(item, 0, 10)
    assert encoded(vision) == [b"cat"]
    item.num_computed_tokens = 5
    vision.release_passed(item)
    assert vision.pinned_bytes == 100
    vision.check([item])
    item.num_computed_tokens = 9
    vision.release_passed(item)
    assert vision.pinned_bytes == 0


def test_a_forgotten_feature_is_dropped_by_the_next_plan_and_encoded_again() -> None:
    vision = VisionBudget(100, 1000)
    vision.begin_step()
    item = one_image("a", "cat")
    vision.reserve(item, 0, 6)
    with pytest.raises(IntegrityError, match="while 1 requests need it"):
        vision.forget(b"cat")
    vision.end_step()
    vision.release_all(item)
    vision.forget(b"cat")
    vision.forget(b"never seen")
    vision.begin_step()
    vision.reserve(item, 0, 6)
    encode, evicted = vision.end_step()
    assert [i.content_hash for i in encode] == [b"cat"]
    assert evicted == (b"cat",)


def test_check_finds_pins_of_requests_that_are_gone() -> None:
    vision = VisionBudget(100, 1000)
    vision.begin_step()
    item = one_image("a", "cat")
    vision.reserve(item, 0, 6)
    vision.check([item])
    with pytest.raises(IntegrityError, match="do not run"):
        vision.check([])
