"""Ask a model everything in a suite, and compare what two models made of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from foveal.core.errors import ConfigurationError
from foveal.evaluation.evaluation_result import (
    Agreement,
    Captions,
    Divergence,
    Evaluation,
    MeasuredModel,
    Perplexity,
    SampleAnswer,
    TaskResult,
)
from foveal.evaluation.metrics.agreement import exact_agreement, top1_agreement
from foveal.evaluation.metrics.answer_match import is_right
from foveal.evaluation.metrics.bleu import bleu, words
from foveal.evaluation.metrics.divergence import kl_divergence
from foveal.evaluation.metrics.perplexity import perplexity, text_windows
from foveal.evaluation.model import EvaluatedModel, Floats32, OnProgress, Prompt, Response
from foveal.evaluation.probes.image_sensitivity import Probed, measure_image_sensitivity
from foveal.evaluation.suite import Suite, SuiteItem, digest_of_questions, is_caption
from foveal.evaluation.tasks.scene import Question

__all__ = ["Observation", "OnStage", "compare", "observe"]

OnStage = Callable[[str, int], OnProgress]
"""(what is being measured, how many steps it has) -> told as steps are done."""

_MOST_LOGIT_BYTES = 512_000_000
_PICTURES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Observation:
    """An evaluation, and what only a comparison needs: answers and predictions in the suite's order."""

    evaluation: Evaluation
    answers: tuple[str, ...]
    top1: tuple[tuple[int, ...], ...]
    logits: Floats32
    """[positions, vocab] of the first questions' answer positions."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """A question with the picture's place in the suite."""

    item: int
    question: Question


def observe(
    model: EvaluatedModel, suite: Suite, *, on_stage: OnStage | None = None, running: bool = True
) -> Observation:
    """Measure everything the suite asks for; parts that cannot be measured are named in `not_measured`.

    Text-only models get the text and nothing else. `running` starts a fresh process for speed and peak memory.
    """
    stage = on_stage or (lambda name, steps: lambda done: None)
    missing = dict(suite.missing)
    responses: list[Response] = []
    asked: list[_Asked] = []
    sensitivity = None
    if model.facts.supports_images:
        asked = [_Asked(i, question) for i, item in enumerate(suite.items) for question in item.questions]
        responses = _ask(model, suite, asked, stage("questions", len(asked)))
        probed = _with_pictures(suite)
        sensitivity = measure_image_sensitivity(
            model, probed, max_tokens=suite.size.max_tokens, progress=stage("image sensitivity", len(probed))
        )
    else:
        missing |= dict.fromkeys(("tasks", "captions", "image_sensitivity"), "the model reads no pictures")
    text = _perplexity(model, suite, stage, missing)
    cost = None
    if running:
        done = stage("speed and memory", 1)
        cost = model.measure_running()
        done(1)
    else:
        missing |= dict.fromkeys(("speed", "peak_memory_bytes"), "left out on demand")
    missing |= dict.fromkeys(("agreement", "kl"), "there is no base to compare with")
    right = [_is_right(suite, a.question, r.answer) for a, r in zip(asked, responses, strict=True)]
    facts = model.facts
    evaluation = Evaluation(
        model=MeasuredModel(name=facts.name, digest=facts.digest),
        suite=suite.description,
        tasks=_tasks(asked, right),
        perplexity=text,
        captions=_captions(asked, responses),
        image_sensitivity=sensitivity,
        size_bytes=facts.size_bytes,
        peak_memory_bytes=cost.peak_memory_bytes if cost else None,
        speed=cost.speed if cost else None,
        machine=facts.machine,
        run_as=facts.run_as,
        samples=_samples(suite, asked, responses),
        not_measured=missing,
    )
    kept = [response.logits for response in responses if response.logits is not None]
    logits = np.concatenate(kept) if kept else np.zeros((0, facts.vocab_size), dtype=np.float32)
    return Observation(evaluation, tuple(r.answer for r in responses), tuple(r.top1 for r in responses), logits)


def compare(candidate: Observation, base: Observation) -> Evaluation:
    """The candidate's evaluation, with agreement and divergence from the base and the base's answers beside its own.

    Raises ConfigurationError when they were not asked the same.
    """
    ours, theirs = candidate.evaluation, base.evaluation
    if ours.suite != theirs.suite:
        raise ConfigurationError(
            f"the candidate was measured with suite {ours.suite!r}, the base with {theirs.suite!r}; measure both with one"
        )
    missing = {part: why for part, why in ours.not_measured.items() if part not in ("agreement", "kl")}
    if not candidate.answers or len(candidate.answers) != len(base.answers):
        reason = (
            "only one of the two reads pictures" if candidate.answers or base.answers else "no questions were asked"
        )
        return replace(ours, not_measured=missing | dict.fromkeys(("agreement", "kl"), reason))
    by_place = {(s.task, s.question, s.image_png_base64): s.candidate for s in theirs.samples}
    samples = tuple(replace(s, base=by_place.get((s.task, s.question, s.image_png_base64))) for s in ours.samples)
    comparable = [len(a) == len(b) for a, b in zip(candidate.top1, base.top1, strict=True)]
    if not all(comparable) or candidate.logits.shape != base.logits.shape:
        missing |= dict.fromkeys(("agreement", "kl"), "the two do not share a tokenizer")
        return replace(ours, samples=samples, not_measured=missing)
    agreement = Agreement(
        greedy_exact=exact_agreement(candidate.answers, base.answers),
        top1=top1_agreement(candidate.top1, base.top1),
        items=len(candidate.answers),
    )
    kl = kl_divergence(base.logits, candidate.logits)
    divergence = Divergence(mean=float(kl.mean()), p99=float(np.quantile(kl, 0.99)), positions=len(kl))
    return replace(ours, agreement=agreement, kl=divergence, samples=samples, not_measured=missing)


def _ask(model: EvaluatedModel, suite: Suite, asked: Sequence[_Asked], progress: OnProgress) -> list[Response]:
    """All questions, in order; logits are kept of those that `divergence_questions` pick, evenly over the suite."""
    size, vocab = suite.size, model.facts.vocab_size
    short = [number for number, a in enumerate(asked) if not is_caption(a.question)]
    most = min(size.divergence_questions, _MOST_LOGIT_BYTES // (16 * vocab))  # about four positions of four bytes
    kept = set(short[:: max(1, len(short) // max(1, most))][:most])
    responses: list[Response] = []
    for start in range(0, len(suite.items), _PICTURES_AT_ONCE):
        here = [number for number, a in enumerate(asked) if start <= a.item < start + _PICTURES_AT_ONCE]
        pictures = {i: suite.items[i].picture() for i in {asked[number].item for number in here}}
        prompts = [Prompt(asked[n].question.text, pictures[asked[n].item], asked[n].question.answer) for n in here]
        found = model.respond(prompts, max_tokens=size.max_tokens, logits=bool(kept.intersection(here)))
        responses += [
            response if number in kept else replace(response, logits=None)
            for number, response in zip(here, found, strict=True)
        ]
        progress(len(here))
    return responses


def _with_pictures(suite: Suite) -> list[Probed]:
    alternatives = suite.alternatives
    return [
        Probed(item.kind, item.picture(), tuple((q.text, q.answer, alternatives[q.task]) for q in item.questions))
        for item in suite.probed()
    ]


def _is_right(suite: Suite, question: Question, answer: str) -> bool:
    return is_right(answer, question.answer, suite.alternatives[question.task])


def _tasks(asked: Sequence[_Asked], right: Sequence[bool]) -> dict[str, TaskResult]:
    questions: dict[str, list[Question]] = {}
    results: dict[str, list[bool]] = {}
    for a, is_correct in zip(asked, right, strict=True):
        if not is_caption(a.question):
            questions.setdefault(a.question.task, []).append(a.question)
            results.setdefault(a.question.task, []).append(is_correct)
    return {
        task: TaskResult(per_item=tuple(results[task]), items_digest=digest_of_questions(questions[task]))
        for task in sorted(results)
    }


def _captions(asked: Sequence[_Asked], responses: Sequence[Response]) -> Captions | None:
    pairs = [(r.answer, a.question.answer) for a, r in zip(asked, responses, strict=True) if is_caption(a.question)]
    if not pairs:
        return None
    score = bleu([words(said) for said, _ in pairs], [[words(wanted)] for _, wanted in pairs], smoothing="exponential")
    return Captions(bleu4=score, items=len(pairs))


def _perplexity(model: EvaluatedModel, suite: Suite, stage: OnStage, missing: dict[str, str]) -> Perplexity | None:
    ids = model.tokenize(suite.passage)[: suite.size.text_tokens]
    if len(ids) < 2:
        missing.setdefault("perplexity", "no text was given")
        return None
    windows = text_windows(len(ids), suite.size.window, suite.size.stride)
    nll = [-score for score in model.log_likelihoods(ids, windows, progress=stage("perplexity", len(windows)))]
    tokens = tuple(window.num_scored for window in windows)
    return Perplexity(value=perplexity(nll, tokens), tokens=sum(tokens), window_nll=tuple(nll), window_tokens=tokens)


def _samples(suite: Suite, asked: Sequence[_Asked], responses: Sequence[Response]) -> tuple[SampleAnswer, ...]:
    """Spread over the suite, one question per picture."""
    first: dict[int, int] = {}
    for number, a in enumerate(asked):
        # Turn about the questions of neighbouring pictures, so that all tasks have a chance to be shown.
        first.setdefault(a.item, number + a.item % len(suite.items[a.item].questions))
    step = max(1, len(first) // max(1, suite.size.samples))
    chosen = list(first.values())[::step][: suite.size.samples]
    return tuple(
        SampleAnswer(
            task=asked[n].question.task,
            question=asked[n].question.text,
            reference=asked[n].question.answer,
            candidate=responses[n].answer,
            image_png_base64=_png(suite.items[asked[n].item]),
        )
        for n in chosen
    )


def _png(item: SuiteItem) -> str:
    picture: Image.Image = item.picture()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
