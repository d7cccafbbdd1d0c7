"""Held-out questions and the target's greedy answers to them: pictures by task, and chat about unseen topics."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM

from foveal.demo.draft.acceptance import Acceptance, measure
from foveal.demo.draft.chat_prompts import held_out_prompts
from foveal.demo.draft.target import Target
from foveal.demo.draft.writing import Prompt, WrittenText, render, write
from foveal.demo.training.pool import Example

__all__ = ["CHAT", "Examination", "by_subject", "load_or_set", "set_examination"]

CHAT = "chat"
_AT_ONCE = 16

Examination = Mapping[str, Sequence[WrittenText]]
"""Texts by subject: CHAT, or the name of a task."""


def set_examination(
    target: Target, pool: Sequence[Example], features: np.ndarray, chats: int, pictures: int, chat_tokens: int = 80
) -> dict[str, list[WrittenText]]:
    """The target answers: `chats` questions, and two questions about each of `pictures` pictures. A fixed seed."""
    found: dict[str, list[WrittenText]] = defaultdict(list)
    prompts = [render(target, question) for question in held_out_prompts(chats)]
    for answers in _answered(target, prompts, chat_tokens):
        found[CHAT] += answers
    rng = random.Random(0)
    tasks: list[str] = []
    asked: list[Prompt] = []
    with torch.inference_mode():
        for example, seen in zip(pool[:pictures], features[:pictures], strict=True):
            patches = target.projector(torch.from_numpy(seen).float())
            for question in rng.sample(example.questions, min(2, len(example.questions))):
                tasks.append(question.task)
                asked.append(render(target, question.text, patches))
    written = [text for answers in _answered(target, asked, 48) for text in answers]
    for task, text in zip(tasks, written, strict=True):
        found[task].append(text)
    return dict(found)


def load_or_set(store: Path, *arguments: object, **sizes: int) -> dict[str, list[WrittenText]]:
    """`set_examination`, kept in a file: the target's answers take longer than marking them."""
    if store.exists():
        kept: dict[str, list[WrittenText]] = torch.load(store, weights_only=False)
        return kept
    found = set_examination(*arguments, **sizes)  # type: ignore[arg-type]
    torch.save(found, store)
    return found


def by_subject(target: Target, draft: LlamaForCausalLM, examination: Examination) -> dict[str, Acceptance]:
    """Acceptance per subject, and "pictures" over all tasks."""
    results = {subject: measure(target, draft, texts) for subject, texts in sorted(examination.items())}
    about_pictures = [text for subject, texts in examination.items() if subject != CHAT for text in texts]
    return results | {"pictures": measure(target, draft, about_pictures)}


def _answered(target: Target, prompts: Sequence[Prompt], most_tokens: int) -> list[list[WrittenText]]:
    return [write(target, prompts[i : i + _AT_ONCE], most_tokens) for i in range(0, len(prompts), _AT_ONCE)]
