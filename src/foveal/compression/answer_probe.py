"""Run a model on questions with the right and with another picture, from any layer on, and compare with the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from foveal.compression.asked_pictures import AskedPicture
from foveal.compression.calibration import CalibrationSample
from foveal.compression.calibration_inputs import PreparedSample, prepare_samples
from foveal.compression.components import Component, blocks_of
from foveal.compression.layer_replay import LayerReplay
from foveal.compression.shared_prefix import build_shared_step, cache_for
from foveal.evaluation.probes.replace_picture import partners
from foveal.models.language_model import TransformersModel
from foveal.models.processing.processor import Processor
from foveal.models.vision_batching import batch_images

__all__ = ["AnswerProbe", "Answers"]

MAX_STEP_TOKENS = 2048


@dataclass(frozen=True)
class Answers:
    """What a model, changed or not, makes of the questions. Mean over questions of the mean over answer tokens, nats."""

    kl: float
    """KL(original || this model), with the right pictures."""
    text_kl: float
    """The same over questions and passages without a picture; 0 where there are none."""
    dependence: float
    """KL(right picture || other picture) of this model; 0 without pictures."""


@dataclass(frozen=True)
class _Shown:
    """A question with the picture that it is shown with."""

    question: int
    right: bool
    sample: PreparedSample


class AnswerProbe:
    """Holds the original's answers and the outputs of all of its blocks; `ask` recomputes only what a change reaches."""

    def __init__(self, model: TransformersModel, processor: Processor, asked: Sequence[AskedPicture]) -> None:
        """Runs the original once. `model` is used as transformers computes it, its fused decoder aside. Raises ValueError
        for fewer than two pictures: there is none to swap with."""
        if len(asked) < 2:
            raise ValueError(f"{len(asked)} pictures to ask about; swapping needs at least 2")
        self._model = model
        self._tower = LayerReplay(blocks_of(model.hf_model, "vision"))
        self._decoder = LayerReplay(blocks_of(model.hf_model, "language"))
        shown = _shown(processor, asked)
        self._images = [about[0].sample.prompt.images for about in shown]
        self._pictures_of_step = _chunks(shown)
        self._steps = [
            build_shared_step(model, [[one.sample for one in shown[number]] for number in pictures])
            for pictures in self._pictures_of_step
        ]
        self._cache = cache_for(model, self._steps)
        order = [one for pictures in self._pictures_of_step for number in pictures for one in shown[number]]
        self._right = _rows_by_question(order, right=True)
        self._other = _rows_by_question(order, right=False)
        self._seeing = _seeing(asked)
        with torch.inference_mode(), self._tower.recording():
            self._place(self._encode())
        with torch.inference_mode(), self._decoder.recording():
            predicted = self._predict()
        self._original = {question: predicted[rows] for question, rows in self._right.items()}
        self.original = self._compare(predicted)
        self.answer_tokens = sum(len(rows) for rows in self._right.values())

    @torch.inference_mode()
    def ask(self, component: Component, layer: int | None) -> Answers:
        """Answers after a change of the weights in one place, which must be the only one. The change is the caller's."""
        if component in ("vision", "projector"):
            before = [step.step.image_features for step in self._steps]
            with self._tower.from_block(len(self._tower) if component == "projector" else layer or 0):
                self._place(self._encode())
            answers = self._compare(self._predict())
            for step, features in zip(self._steps, before, strict=True):
                step.step.image_features = features
            return answers
        first = len(self._decoder) if component == "head" else layer or 0
        with self._decoder.from_block(first):
            return self._compare(self._predict())

    def _encode(self) -> list[list[torch.Tensor]]:
        """Features per shown picture. Always the same encoder calls in the same order."""
        flat = [(number, image) for number, images in enumerate(self._images) for image in images]
        features: list[list[torch.Tensor]] = [[] for _ in self._images]
        encoded: dict[int, torch.Tensor] = {}
        for batch in batch_images([image for _, image in flat]):
            outputs = self._model.encode_images([flat[index][1] for index in batch])
            encoded.update(zip(batch, outputs, strict=True))
        for index, (number, _) in enumerate(flat):
            features[number].append(encoded[index])
        return features

    def _place(self, features: Sequence[Sequence[torch.Tensor]]) -> None:
        for step, pictures in zip(self._steps, self._pictures_of_step, strict=True):
            step.place_features([tensor for number in pictures for tensor in features[number]])

    def _predict(self) -> torch.Tensor:
        """log p [A, vocab] at every answer position of every step."""
        with _as_transformers_computes(self._model):
            logits = [
                self._model.compute_logits(self._model.forward(step.step, self._cache)[step.answer_rows])
                for step in self._steps
            ]
        return torch.log_softmax(torch.cat(logits), -1)

    def _compare(self, predicted: torch.Tensor) -> Answers:
        now = {question: predicted[rows] for question, rows in self._right.items()}
        kl = {question: _kl(self._original[question], found) for question, found in now.items()}
        other = [_kl(now[question], predicted[rows]) for question, rows in self._other.items()]
        return Answers(
            _mean([value for question, value in kl.items() if question in self._seeing]),
            _mean([value for question, value in kl.items() if question not in self._seeing]),
            _mean(other),
        )


def _shown(processor: Processor, asked: Sequence[AskedPicture]) -> list[list[_Shown]]:
    """Per picture the samples that show it: its own questions, and those of the picture whose partner it is."""
    shown: list[list[_Shown]] = [[] for _ in asked]
    swapped = partners([one.kind for one in asked])
    question = 0
    for number, one in enumerate(asked):
        for text, answer in one.questions:
            shown[number].append(_Shown(question, True, _prepare(processor, asked[number], text, answer)))
            if one.picture is not None:
                sample = _prepare(processor, asked[swapped[number]], text, answer)
                shown[swapped[number]].append(_Shown(question, False, sample))
            question += 1
    return shown


def _prepare(processor: Processor, about: AskedPicture, text: str, answer: str) -> PreparedSample:
    return prepare_samples([CalibrationSample(about.picture, text, answer)], processor)[0]


def _chunks(shown: Sequence[Sequence[_Shown]]) -> list[list[int]]:
    """Pictures per step: as many as fit MAX_STEP_TOKENS, counted without sharing."""
    chunks: list[list[int]] = []
    total = 0
    for number, about in enumerate(shown):
        tokens = sum(one.sample.num_tokens for one in about)
        if not chunks or total + tokens > MAX_STEP_TOKENS:
            chunks.append([])
            total = 0
        chunks[-1].append(number)
        total += tokens
    return chunks


def _seeing(asked: Sequence[AskedPicture]) -> set[int]:
    """Numbers of the questions that are about a picture."""
    about = [one.picture is not None for one in asked for _ in one.questions]
    return {question for question, sees in enumerate(about) if sees}


def _rows_by_question(order: Sequence[_Shown], *, right: bool) -> dict[int, torch.Tensor]:
    """Per question its rows among all answer positions; empty if no question is shown that way."""
    rows: dict[int, torch.Tensor] = {}
    start = 0
    for one in order:
        count = int(one.sample.answer_mask.sum())
        if one.right == right:
            rows[one.question] = torch.arange(start, start + count)
        start += count
    return {question: rows[question] for question in sorted(rows)}


def _kl(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Mean over positions of KL(reference || other); both are log p [T, vocab]."""
    return max(0.0, float((reference.exp() * (reference - other)).sum(-1, dtype=torch.float64).mean()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@contextmanager
def _as_transformers_computes(model: TransformersModel) -> Iterator[None]:
    """Replays go by transformers' blocks, which the fused decoder does not call."""
    fused, model.fused = model.fused, None
    try:
        yield
    finally:
        model.fused = fused
