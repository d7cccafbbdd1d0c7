"""Which questions, how many, and in which order: the same for every model, so that results can be compared pair by pair."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from foveal.evaluation.tasks.catalogue import make_item
from foveal.evaluation.tasks.easy_vqa import read_easy_vqa
from foveal.evaluation.tasks.scene import Question
from foveal.evaluation.text_corpus import read_text

__all__ = ["DEFAULT", "QUICK", "Suite", "SuiteItem", "SuiteSize", "digest_of_questions", "is_caption"]

FIRST_INDEX = 1000
"""Held-out pictures below this were watched while the demo model was trained."""


@dataclass(frozen=True, slots=True)
class SuiteSize:
    """How much is asked. Pictures per rendered family and of easy-VQA's test split are upper bounds: a picture that no
    task needs is not shown."""

    name: str
    pictures: dict[str, int]
    easy_vqa_pictures: int
    questions_per_task: int
    captions_per_task: int
    text_tokens: int
    probed_pictures: int
    """Pictures of the image sensitivity probes, spread over all kinds; each is asked about four times."""
    probed_questions: int = 4
    """Questions about each of them."""
    divergence_questions: int = 192
    """Questions whose full next-token distributions are compared with the base's."""
    window: int = 256
    stride: int = 128
    max_tokens: int = 48
    samples: int = 12
    """Answers shown side by side."""


DEFAULT = SuiteSize(
    name="default",
    pictures={"shapes": 240, "relations": 120, "text": 120, "bars": 240},
    easy_vqa_pictures=80,
    # The gate's interval for a model without one lost answer ends below three points from 215 questions on.
    questions_per_task=240,
    captions_per_task=60,
    text_tokens=8192,
    probed_pictures=48,
)
QUICK = SuiteSize(
    name="quick",
    pictures={"shapes": 24, "relations": 12, "text": 12, "bars": 20},
    easy_vqa_pictures=10,
    questions_per_task=30,
    captions_per_task=8,
    text_tokens=2048,
    probed_pictures=10,
    divergence_questions=64,
)
MOST_OF_A_TASK_PER_PICTURE = 3
"""Questions of one task about one picture are not independent: more pictures tell more than more questions."""
LEFT_OUT = ("digit_yes_no",)
"""Tasks with one question in so few pictures that they would cost more than they tell."""


@dataclass(frozen=True, slots=True, eq=False)
class SuiteItem:
    """One picture and what is asked about it."""

    kind: str
    picture: Callable[[], Image.Image]
    questions: tuple[Question, ...]

    @property
    def asked(self) -> tuple[Question, ...]:
        """Those with one right answer."""
        return tuple(question for question in self.questions if not is_caption(question))

    @property
    def captions(self) -> tuple[Question, ...]:
        return tuple(question for question in self.questions if is_caption(question))


@dataclass(frozen=True, eq=False)
class Suite:
    """A size with its data. `easy_vqa` is the folder easy_vqa/data, `text` an English text; without one the part is left
    out and `missing` says why."""

    size: SuiteSize = DEFAULT
    seed: int = 0
    easy_vqa: Path | None = None
    text: Path | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @cached_property
    def items(self) -> tuple[SuiteItem, ...]:
        """Pictures with the questions that are asked. Raises TaskDataError when the folder does not hold easy-VQA."""
        return tuple(_until_full(self._available(), self.size))

    def _available(self) -> Iterator[SuiteItem]:
        for kind, number in self.size.pictures.items():
            first = FIRST_INDEX + 100_000 * self.seed
            for index in range(first, first + number):
                item = make_item(kind, "held-out", index)
                yield SuiteItem(kind, item.picture, item.questions)
        if self.easy_vqa is not None and self.size.easy_vqa_pictures:
            pictures = read_easy_vqa(self.easy_vqa, "test")
            number = min(len(pictures), self.size.easy_vqa_pictures)
            for found in random.Random(f"easy-vqa/{self.seed}").sample(pictures, number):
                yield SuiteItem("easy_vqa", found.picture, found.questions)

    @cached_property
    def passage(self) -> str:
        """The beginning of the text; "" without one. Longer than any tokenizer needs for `text_tokens`."""
        return "" if self.text is None else read_text(self.text)[: 16 * self.size.text_tokens]

    @property
    def description(self) -> str:
        """One line that is equal for equal suites only: sizes, seed, and digests of questions and text."""
        counts = " ".join(f"{kind}={number}" for kind, number in self.pictures_per_kind.items())
        text = hashlib.sha256(self.passage.encode()).hexdigest()[:12] if self.text is not None else "none"
        size = self.size
        return (
            f"{size.name} seed={self.seed} {counts} questions={digest_of_questions(self.all_questions)} text={text} "
            f"tokens={size.text_tokens} window={size.window}/{size.stride} probes={size.probed_pictures}"
        )

    @property
    def pictures_per_kind(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for item in self.items:
            counts[item.kind] = counts.get(item.kind, 0) + 1
        return counts

    @cached_property
    def all_questions(self) -> list[Question]:
        return [question for item in self.items for question in item.questions]

    @cached_property
    def alternatives(self) -> dict[str, frozenset[str]]:
        """Task -> all answers that its questions in this suite have."""
        found: dict[str, set[str]] = {}
        for question in self.all_questions:
            found.setdefault(question.task, set()).add(question.answer)
        return {task: frozenset(answers) for task, answers in found.items()}

    def probed(self) -> list[SuiteItem]:
        """Items for the image probes, evenly from each kind, each with some questions of different tasks."""
        by_kind: dict[str, list[SuiteItem]] = {}
        for item in self.items:
            by_kind.setdefault(item.kind, []).append(item)
        share = max(2, -(-self.size.probed_pictures // max(1, len(by_kind))))
        rng = random.Random(f"probes/{self.seed}")
        chosen = [item for group in by_kind.values() for item in group[:share]]
        return [replace(item, questions=_mixed(item.asked, self.size.probed_questions, rng)) for item in chosen]


def _until_full(items: Iterable[SuiteItem], size: SuiteSize) -> Iterator[SuiteItem]:
    """The items with only those questions that their tasks still need; items without any are dropped."""
    asked: Counter[str] = Counter()
    for item in items:
        here: Counter[str] = Counter()
        chosen = []
        for question in item.questions:
            task = question.task
            limit = size.captions_per_task if is_caption(question) else size.questions_per_task
            if task in LEFT_OUT or asked[task] >= limit or here[task] >= MOST_OF_A_TASK_PER_PICTURE:
                continue
            asked[task] += 1
            here[task] += 1
            chosen.append(question)
        if chosen:
            yield replace(item, questions=tuple(chosen))


def is_caption(question: Question) -> bool:
    return question.task.startswith("caption")


def digest_of_questions(questions: Sequence[Question]) -> str:
    """Twelve hex digits over task, text and answer, in order."""
    lines = "\n".join(f"{question.task}\t{question.text}\t{question.answer}" for question in questions)
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def _mixed(questions: Sequence[Question], number: int, rng: random.Random) -> tuple[Question, ...]:
    """At most `number` questions, one of each task before a second of any."""
    shuffled = rng.sample(list(questions), len(questions))
    rounds: dict[str, int] = {}
    ranked = []
    for position, question in enumerate(shuffled):
        turn = rounds.get(question.task, 0)
        rounds[question.task] = turn + 1
        ranked.append((turn, position, question))
    return tuple(question for _, _, question in sorted(ranked, key=lambda entry: entry[:2])[:number])
