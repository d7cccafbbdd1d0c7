"""The training pictures: rendered scenes, easy-VQA, clip-art; each with its questions and, where known, its geometry."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from foveal.evaluation.tasks.catalogue import FAMILIES, Item, Split, make_item
from foveal.evaluation.tasks.clip_art import category_phrase, read_clip_art
from foveal.evaluation.tasks.easy_vqa import read_easy_vqa
from foveal.evaluation.tasks.scene import CAPTION_REQUESTS, Question, Thing, with_article

HARD_TASKS = ("count", "relation", "which_side", "bar_count", "digit")
_EASY_SHAPES = ("circle", "rectangle", "triangle")


@dataclass(frozen=True)
class Example:
    """One picture. `things` is empty where the geometry is unknown; `words` then names what the picture shows."""

    kind: str
    picture: Callable[[], Image.Image]
    questions: tuple[Question, ...]
    things: tuple[Thing, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class PoolSizes:
    """Number of pictures per kind."""

    shapes: int = 3200
    relations: int = 2400
    text: int = 2000
    bars: int = 2200
    easy_vqa: int = 1000
    clip_art_per_category: int = 330

    @classmethod
    def for_monitoring(cls) -> PoolSizes:
        return cls(100, 100, 100, 100, 100, 20)


def build_pool(sizes: PoolSizes, split: Split, easy_vqa: Path, clip_art: Path | None) -> list[Example]:
    """All examples, shuffled by a fixed seed so that any prefix is a fair mixture."""
    pool: list[Example] = []
    for kind in ("shapes", "relations", "text", "bars"):
        for index in range(getattr(sizes, kind)):
            item = make_item(kind, split, index)
            questions = _with_more_wordings(item) if split == "train" else item.questions
            pool.append(Example(kind, item.picture, questions, item.scene.things))
    easy_items = read_easy_vqa(easy_vqa, "train" if split == "train" else "test")
    pool += [
        _easy_example(item.picture, item.questions, split)
        for item in random.Random(1).sample(easy_items, sizes.easy_vqa)
    ]
    if clip_art is not None:
        for clip in read_clip_art(clip_art, split, sizes.clip_art_per_category):
            pool.append(Example("clip_art", clip.picture, clip.questions, words=(clip.category,)))
    random.Random(0).shuffle(pool)
    return pool


def _with_more_wordings(item: Item) -> tuple[Question, ...]:
    """The hard tasks ask little about each picture; two more draws of their wordings make them more frequent."""
    questions = dict.fromkeys(item.questions)
    rng = random.Random(item.index)
    for _ in range(2):
        drawn = FAMILIES[item.kind].questions(item.scene, rng)
        questions |= dict.fromkeys(q for q in drawn if q.task in HARD_TASKS)
    return tuple(questions)


def _easy_example(picture: Callable[[], Image.Image], questions: tuple[Question, ...], split: Split) -> Example:
    """easy-VQA's questions, its geometry from the pixels, and (in training) one caption of ours."""
    shape = next((q.answer for q in questions if q.answer in _EASY_SHAPES), None)
    colour = next((q.answer for q in questions if q.answer not in (*_EASY_SHAPES, "yes", "no")), None)
    if shape is None or colour is None:  # this picture was asked yes/no questions only
        return Example("easy_vqa", picture, questions)
    pixels = np.asarray(picture()).astype(int)
    differs = np.abs(pixels - pixels[0, 0]).sum(-1) > 30
    rows, columns = np.nonzero(differs)
    side = pixels.shape[0]
    thing = Thing(
        form={"rectangle": "square"}.get(shape, shape),
        colour=colour,
        rgb=(0, 0, 0),
        x=float(columns.mean() + 0.5) / side,
        y=float(rows.mean() + 0.5) / side,
        width=float(np.ptp(columns) + 1) / side,
        height=float(np.ptp(rows) + 1) / side,
        label=shape,
    )
    if split == "train":
        request = CAPTION_REQUESTS[len(questions) % len(CAPTION_REQUESTS)]
        questions = (*questions, Question("caption_easy", request, with_article(f"{colour} {shape}")))
    return Example("easy_vqa", picture, questions, (thing,))


__all__ = ["Example", "PoolSizes", "build_pool", "category_phrase"]
