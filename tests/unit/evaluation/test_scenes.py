"""The answers follow from the scenes, the pictures show them, and the splits share nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.evaluation.tasks.catalogue import FAMILIES, make_item, stream
from foveal.evaluation.tasks.render import PICTURE_SIDE, mask, render
from foveal.evaluation.tasks.scene import COLOURS, SHAPES, Scene, Thing, in_reading_order, join_words

indices = st.integers(min_value=0, max_value=100_000)


def answers(kind: str, index: int) -> list[tuple[str, str, str, Scene]]:
    item = make_item(kind, "train", index)
    return [(q.task, q.text, q.answer, item.scene) for q in item.questions]


@given(indices)
@settings(max_examples=60, deadline=None)
def test_counts_equal_the_number_of_matching_things(index: int) -> None:
    for task, text, answer, scene in answers("shapes", index):
        if task == "count":
            assert answer == str(len(scene.things))
        elif task == "count_color":
            colour = next(c for c in COLOURS if c in text.rstrip("?").split())
            assert answer == str(sum(thing.colour == colour for thing in scene.things))
        elif task == "count_shape":
            form = next(f for f in SHAPES if f"{f}s" in text)
            assert answer == str(sum(thing.form == form for thing in scene.things))


@given(indices)
@settings(max_examples=60, deadline=None)
def test_existence_is_affirmed_exactly_for_what_is_in_the_scene(index: int) -> None:
    for task, text, answer, scene in answers("shapes", index):
        if task == "exists":
            words = text.rstrip("?").split()
            wanted_colours, wanted_forms = set(words) & set(COLOURS), set(words) & set(SHAPES)
            there = any(
                (not wanted_colours or thing.colour in wanted_colours)
                and (not wanted_forms or thing.form in wanted_forms)
                for thing in scene.things
            )
            assert answer == ("yes" if there else "no"), text


@given(indices)
@settings(max_examples=60, deadline=None)
def test_colour_and_shape_are_asked_only_where_one_thing_is_meant(index: int) -> None:
    for task, text, answer, scene in answers("shapes", index):
        if task == "color" and "shapes" not in text and "used" not in text:
            form = next(f for f in SHAPES if f in text)
            assert [thing.colour for thing in scene.things if thing.form == form] == [answer]
        if task == "shape":
            colour = next(c for c in COLOURS if c in text.split())
            assert [thing.form for thing in scene.things if thing.colour == colour] == [answer]


@given(indices)
@settings(max_examples=60, deadline=None)
def test_a_relation_is_true_of_the_coordinates_by_a_clear_margin(index: int) -> None:
    for task, text, answer, scene in answers("relations", index):
        if task != "relation":
            continue
        subject, other = by_mention(scene, text)
        if text.startswith("On which side"):
            subject, other = other, subject
        across, down = subject.x - other.x, subject.y - other.y
        assert abs(abs(across) - abs(down)) * PICTURE_SIDE > 29
        truth = {"left": across < 0, "right": across > 0, "above": down < 0, "below": down > 0}
        assert truth[answer], text
        assert (answer in ("left", "right")) == (abs(across) > abs(down))


def by_mention(scene: Scene, text: str) -> list[Thing]:
    """The two things in the order in which the text names them, by colour or form."""

    def first_mention(thing: Thing) -> int:
        return min(at for at in (text.find(f" {thing.colour} "), text.find(f" {thing.form}")) if at >= 0)

    return sorted(scene.things, key=first_mention)


@given(indices)
@settings(max_examples=40, deadline=None)
def test_yes_no_relations_come_in_contradicting_pairs(index: int) -> None:
    told = [answer for task, _, answer, _ in answers("relations", index) if task == "relation_yes_no"]
    assert sorted(told) == ["no", "no", "yes", "yes"]


@given(indices)
@settings(max_examples=60, deadline=None)
def test_bar_questions_follow_from_the_heights(index: int) -> None:
    for task, text, answer, scene in answers("bars", index):
        height = {bar.colour: bar.height for bar in scene.things}
        match task:
            case "bar_count":
                assert answer == str(len(height))
            case "bar_tallest":
                assert height[answer] == max(height.values())
            case "bar_shortest":
                assert height[answer] == min(height.values())
            case "bar_compare":
                first, second = sorted((c for c in height if f" {c} " in f" {text[:-1]} "), key=text.index)
                assert answer == ("yes" if height[first] > height[second] else "no")


@given(indices)
@settings(max_examples=40, deadline=None)
def test_a_digit_is_asked_by_its_label_and_never_for_letters(index: int) -> None:
    for task, _, answer, scene in answers("text", index):
        label = scene.things[0].label
        if task == "digit":
            assert answer == label
            assert label.isdigit()
        if task == "text_color":
            assert answer == scene.things[0].colour


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_an_item_is_the_same_whenever_it_is_made(kind: str) -> None:
    assert make_item(kind, "held-out", 3) == make_item(kind, "held-out", 3)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_held_out_scenes_do_not_occur_in_training(kind: str) -> None:
    trained = {make_item(kind, "train", index).scene for index in range(300)}
    held_out = {make_item(kind, "held-out", index).scene for index in range(300)}
    assert len(trained) == len(held_out) == 300
    assert not trained & held_out


def test_the_random_streams_of_the_splits_differ() -> None:
    first = {stream("shapes", "train", index).random() for index in range(2000)}
    second = {stream("shapes", "held-out", index).random() for index in range(2000)}
    assert not first & second


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown task family 'maps'; known: shapes"):
        make_item("maps", "train", 0)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_every_thing_shows_its_own_colour_at_its_own_place(kind: str) -> None:
    scene = make_item(kind, "held-out", 5).scene
    pixels = np.asarray(render(scene))
    for thing in scene.things:
        inside = np.asarray(mask(thing)) == 255
        assert inside.sum() > 100
        assert (pixels[inside] == thing.rgb).all(axis=-1).mean() > 0.8  # the chart's floor line crosses short bars


def test_things_do_not_overlap() -> None:
    for index in range(30):
        covered = [np.asarray(mask(thing)) > 0 for thing in make_item("shapes", "train", index).scene.things]
        assert np.sum(covered, axis=0).max() == 1


def test_an_unknown_form_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="cannot draw a thing of form 'cube'"):
        mask(Thing("cube", "red", (255, 0, 0), 0.5, 0.5, 0.1, 0.1))


def test_captions_list_things_row_by_row_from_left_to_right() -> None:
    def at(x: float, y: float) -> Thing:
        return Thing("circle", "red", (255, 0, 0), x, y, 0.1, 0.1)

    low, right, left = at(0.1, 0.9), at(0.8, 0.13), at(0.2, 0.2)
    assert in_reading_order([low, right, left]) == [left, right, low]


@pytest.mark.parametrize(
    ("words", "joined"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_words_are_joined_as_english_does(words: list[str], joined: str) -> None:
    assert join_words(words) == joined


def test_every_count_from_one_to_five_occurs() -> None:
    rng = random.Random(0)
    numbers = {len(FAMILIES["shapes"].make_scene(rng).things) for _ in range(60)}
    assert numbers == {1, 2, 3, 4, 5}
