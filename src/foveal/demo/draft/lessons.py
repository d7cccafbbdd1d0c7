"""What the draft is taught: rows of questions about pictures, and texts, each with the target's states.

Every worker gathers its own share by the clock and keeps it in one file, so that a killed run goes on.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foveal.demo.draft.chat_prompts import training_prompts
from foveal.demo.draft.target import Target
from foveal.demo.draft.writing import LIKELY, WrittenText, read, render, write
from foveal.demo.training.decoder import Decoder
from foveal.demo.training.joint import JointConfig, Parts, RowSampler, forward
from foveal.demo.training.packing import PromptCodec, Row, collate
from foveal.demo.training.pool import Example
from foveal.demo.training.rehearsal import Rehearsal
from foveal.demo.training.warm_start import FeatureScale

__all__ = ["Pictures", "SeenRow", "gather_rows", "gather_texts", "load_lessons", "picture_parts", "see_rows"]

ANSWER_TOKENS = 80
_PROMPTS_AT_ONCE = 48
_TEMPERATURES = (0.0, 0.7, 0.0, 1.0)  # mostly what it will be asked for, and some of what lies beside it
_TEXTS_AT_ONCE = 16
_SAVE_EVERY = 8

Report = Callable[[str], None]


@dataclass(frozen=True)
class Pictures:
    """The pool with cached features: fp16 [n, 64, width]; no picture is rendered again."""

    pool: list[Example]
    features: np.ndarray


@dataclass(frozen=True)
class SeenRow:
    """A packed row; states fp16 [answers, hidden] and likely int32 [answers, LIKELY], in the order of `row.answers`."""

    row: Row
    states: torch.Tensor
    likely: torch.Tensor


def picture_parts(target: Target, pictures: Pictures, int8: bool) -> Parts:
    """The target as the packed training code runs it. With int8 products it is up to twice as fast, and hardly differs."""
    width = target.projector[0].in_features
    return Parts(
        decoder=Decoder(target.language, rank=1, scale=0.0, int8=int8),
        projector=target.projector,
        scale=FeatureScale(torch.zeros(width), torch.ones(width)),  # folded into the projector
        codec=PromptCodec(target.tokenizer),
        rehearsal=Rehearsal([], []),
        pool=pictures.pool,
        features=pictures.features,
        monitor_pool=[],
        monitor_features=pictures.features,
        pad=target.end_of_turn,
    )


@torch.inference_mode()
def see_rows(parts: Parts, rows: list[Row], length: int) -> list[SeenRow]:
    """What the target knows at every answer token of the rows."""
    batch = collate(rows, length, parts.pad)
    states = forward(parts, batch, parts.features).flatten(0, 1)[batch.answer_offsets]
    likely = (states @ parts.decoder.embeddings.T).topk(LIKELY, dim=-1).indices.int()
    counts = [len(row.answers) for row in rows]
    split = zip(rows, states.half().split(counts), likely.split(counts), strict=True)
    return [SeenRow(row, state.clone(), best.clone()) for row, state, best in split]


def gather_rows(parts: Parts, minutes: float, store: Path, seed: int, report: Report) -> None:
    config = JointConfig(rows=2, text_share_of_rows=0.0)
    sampler = RowSampler(parts, config, random.Random(seed))

    def more(number: int) -> list[SeenRow]:
        return see_rows(parts, sampler.rows(), config.row_tokens)

    _gather(more, minutes, store, "rows of questions", report)


def gather_texts(
    target: Target, rehearsal: list[list[int]], minutes: float, store: Path, worker: int, workers: int, report: Report
) -> None:
    """First the rehearsal's texts are read, then prompts are answered, each worker its own."""
    given = rehearsal[worker::workers]
    readings = -(-len(given) // _TEXTS_AT_ONCE)
    prompts = training_prompts()[worker::workers]

    def more(number: int) -> list[WrittenText]:
        if number < readings:
            return read(target, given[number * _TEXTS_AT_ONCE : (number + 1) * _TEXTS_AT_ONCE])
        number -= readings
        torch.manual_seed(1000 * worker + number)
        start = number * _PROMPTS_AT_ONCE
        chosen = [prompts[i % len(prompts)] for i in range(start, start + _PROMPTS_AT_ONCE)]
        temperature = _TEMPERATURES[number % len(_TEMPERATURES)]
        if start >= len(prompts):  # second round: the greedy answers are known
            temperature = max(temperature, 0.85)
        return write(target, [render(target, prompt) for prompt in chosen], ANSWER_TOKENS, temperature)

    _gather(more, minutes, store, "texts", report)


def load_lessons(folder: Path) -> tuple[list[SeenRow], list[WrittenText]]:
    """Of all workers."""
    rows = [row for path in sorted(folder.glob("rows.*.pt")) for row in _load(path)[1]]
    texts = [text for path in sorted(folder.glob("texts.*.pt")) for text in _load(path)[1]]
    return rows, texts


def _gather(more: Callable[[int], list], minutes: float, store: Path, noun: str, report: Report) -> None:  # type: ignore[type-arg]
    """Calls `more(0)`, `more(1)`, ... until the minutes are used; goes on from the file."""
    spent, items, number = 0.0, [], 0
    if store.exists():
        (spent, number), items = _load(store)
    last = time.monotonic()
    while spent < minutes:
        items += more(number)
        number += 1
        now = time.monotonic()
        spent, last = spent + (now - last) / 60, now
        if number % _SAVE_EVERY == 0 or spent >= minutes:
            temporary = store.with_suffix(".tmp")
            torch.save(((spent, number), items), temporary)
            os.replace(temporary, store)
            answers = sum(len(item.states) for item in items)
            report(f"{store.stem}: {len(items)} {noun}, {answers} target states, {spent:.1f} of {minutes:g} min")


def _load(path: Path) -> tuple[tuple[float, int], list]:  # type: ignore[type-arg]
    header, items = torch.load(path, weights_only=False)
    return header, items
