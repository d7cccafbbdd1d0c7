"""Packs pictures with many questions, and rehearsal texts, into rows of one fixed length.

A row holds several groups. A group is a picture followed by questions, or one text. A question sees its own picture and
itself only, and its positions restart right behind the picture, so each is computed exactly as if asked alone:

    group      1 1 1 1 1 1 1 1 1 1 2 2 2 2 2 2
    segment    0 0 0 0 1 1 1 2 2 2 0 0 0 1 1 1
    position   0 1 2 3 4 5 6 4 5 6 0 1 2 3 4 5
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from foveal.demo.language_weights import IMAGE_TOKEN
from foveal.demo.training.features import NUM_PATCHES
from foveal.evaluation.tasks.scene import Question

__all__ = ["Batch", "PromptCodec", "Row", "all_of_next", "collate"]

TASK_WEIGHTS = {
    "count": 4.0,
    "count_color": 1.5,
    "count_shape": 1.5,
    "exists": 0.8,
    "relation": 4.0,
    "relation_yes_no": 1.2,
    "which_side": 1.0,
    "digit": 2.0,
    "bar_count": 2.5,
    "bar_tallest": 1.5,
    "bar_shortest": 1.5,
    "bar_compare": 0.8,
    "caption_shapes": 3.0,
    "caption_bars": 3.0,
    "category": 2.0,
    "caption_category": 2.0,
}


class PromptCodec:
    """Token ids of prompts, split where packing needs it. Equal to the processor's output (a test checks it)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        before = self._encode("<|im_start|>user\n")
        self.prefix = [*before, *[image] * NUM_PATCHES, *self._encode("\n")]
        self.first_patch = len(before)
        self._cache: dict[tuple[str, str], tuple[list[int], list[int]]] = {}

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def question(self, question: Question) -> tuple[list[int], list[int]]:
        """(question ids up to the assistant's turn, answer ids with the end of turn)."""
        key = question.text, question.answer
        if key not in self._cache:
            self._cache[key] = (
                self._encode(question.text + "<|im_end|>\n<|im_start|>assistant\n"),
                self._encode(question.answer + "<|im_end|>"),
            )
        return self._cache[key]


@dataclass
class Row:
    ids: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    pictures: list[tuple[int, int]] = field(default_factory=list)  # (offset of the first patch, example number)
    answers: list[tuple[int, int, float]] = field(default_factory=list)  # (offset, next token, weight)
    texts: list[tuple[int, int]] = field(default_factory=list)  # (offset, text number)

    def _append(self, ids: Sequence[int], group: int, segment: int, start: int) -> int:
        offset = len(self.ids)
        self.ids += ids
        self.groups += [group] * len(ids)
        self.segments += [segment] * len(ids)
        self.positions += range(start, start + len(ids))
        return offset

    def add_picture(
        self, example: int, questions: Sequence[Question], codec: PromptCodec, room: int, rng: random.Random
    ) -> list[Question]:
        """The picture and as many questions as fit into `room` tokens, the heavier tasks more likely; these in order."""
        group = len(self.pictures) + len(self.texts) + 1
        length = len(codec.prefix)
        offset = self._append(codec.prefix, group, 0, 0)
        self.pictures.append((offset + codec.first_patch, example))
        room -= length
        ordered = sorted(questions, key=lambda q: rng.random() ** (1 / TASK_WEIGHTS.get(q.task, 1.0)), reverse=True)
        taken: list[Question] = []
        for segment, question in enumerate(ordered, start=1):
            asked, answer = codec.question(question)
            tokens = asked + answer[:-1]
            if len(tokens) > room:
                continue
            room -= len(tokens)
            first = self._append(tokens, group, segment, length) + len(asked) - 1
            weight = len(answer) ** -0.5
            self.answers += [(first + i, token, weight) for i, token in enumerate(answer)]
            taken.append(question)
        return taken

    def add_text(self, number: int, ids: Sequence[int]) -> None:
        group = len(self.pictures) + len(self.texts) + 1
        self.texts.append((self._append(ids, group, 0, 0), number))


def all_of_next(hits: Iterator[bool], number: int) -> bool:
    """Whether the next `number` hits are all true; consumes exactly that many."""
    return all(list(itertools.islice(hits, number)))


@dataclass(frozen=True)
class Batch:
    """Tensors of packed rows. Offsets in `answers` and `texts` count through the flattened batch."""

    ids: torch.Tensor  # [rows, length]
    positions: torch.Tensor  # [rows, length]
    mask: torch.Tensor  # bool [rows, 1, length, length]
    patch_offsets: torch.Tensor  # [pictures]: flat offset of each picture's first patch
    examples: list[int]
    answer_offsets: torch.Tensor
    answer_tokens: torch.Tensor
    answer_weights: torch.Tensor
    texts: list[tuple[int, int]]


def collate(rows: Sequence[Row], length: int, pad: int) -> Batch:
    """Rows padded to `length` tokens; padding sees only itself."""
    count = len(rows)
    ids = torch.full((count, length), pad)
    groups, segments = torch.zeros(count, length, dtype=torch.long), torch.zeros(count, length, dtype=torch.long)
    positions = torch.zeros(count, length, dtype=torch.long)
    patches, examples, answers, texts = [], [], [], []
    for number, row in enumerate(rows):
        filled = len(row.ids)
        for target, values in (
            (ids, row.ids),
            (groups, row.groups),
            (segments, row.segments),
            (positions, row.positions),
        ):
            target[number, :filled] = torch.tensor(values)
        patches += [number * length + offset for offset, _ in row.pictures]
        examples += [example for _, example in row.pictures]
        answers += [(number * length + offset, token, weight) for offset, token, weight in row.answers]
        texts += [(number * length + offset, text) for offset, text in row.texts]
    same_group = groups[:, :, None] == groups[:, None, :]
    visible = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    mask = same_group & visible & torch.ones(length, length, dtype=torch.bool).tril()
    offsets, tokens, weights = zip(*answers, strict=True) if answers else ((), (), ())
    return Batch(
        ids,
        positions,
        mask[:, None],
        torch.tensor(patches, dtype=torch.long),
        examples,
        torch.tensor(offsets, dtype=torch.long),
        torch.tensor(tokens, dtype=torch.long),
        torch.tensor(weights),
        texts,
    )
