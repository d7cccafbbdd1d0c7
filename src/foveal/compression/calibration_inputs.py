"""Calibration samples through the checkpoint's own processor and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foveal.compression.calibration import CalibrationSample
from foveal.models.image_input import PromptInput
from foveal.models.processing.processor import Processor

__all__ = ["PreparedSample", "prepare_samples"]


@dataclass(frozen=True)
class PreparedSample:
    """One sample as the model reads it, the answer included."""

    prompt: PromptInput
    image_mask: npt.NDArray[np.bool_]
    """[num_tokens], True where an image feature stands."""
    answer_mask: npt.NDArray[np.bool_]
    """[num_tokens], True where the logits predict a token of the answer: one position before each."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt.token_ids)


def prepare_samples(samples: Sequence[CalibrationSample], processor: Processor) -> list[PreparedSample]:
    """As a request would arrive: picture first, then the question; followed by the answer and the end token.

    Models without a chat template get the bare text, and so do samples without a question.
    Raises InvalidRequestError for a picture the model cannot take.
    """
    return [_prepare(sample, processor) for sample in samples]


def _prepare(sample: CalibrationSample, processor: Processor) -> PreparedSample:
    images = [] if sample.picture is None else [sample.picture]
    if not sample.question:
        return _passage(sample, processor)
    if processor.has_chat_template:
        parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": sample.question}]
        asked = processor.apply_chat_template([{"role": "user", "content": parts}])
    else:
        asked = f"{processor.placeholder}\n" * len(images) + f"{sample.question}\n"
    asked_length = len(processor.prepare(asked, images).token_ids)
    prompt = processor.prepare(asked + sample.answer + (processor.tokenizer.eos_token or ""), images)
    length = len(prompt.token_ids)
    image_mask, answer_mask = np.zeros(length, np.bool_), np.zeros(length, np.bool_)
    for span in prompt.spans:
        image_mask[span.offset : span.end] = True
    answer_mask[asked_length - 1 : length - 1] = True
    return PreparedSample(prompt, image_mask, answer_mask)


def _passage(sample: CalibrationSample, processor: Processor) -> PreparedSample:
    prompt = processor.prepare(sample.answer, [])
    length = len(prompt.token_ids)
    answer_mask = np.ones(length, np.bool_)
    answer_mask[-1] = False
    return PreparedSample(prompt, np.zeros(length, np.bool_), answer_mask)
