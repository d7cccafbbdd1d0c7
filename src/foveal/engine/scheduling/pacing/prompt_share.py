"""How much of a step prompts may take while other requests decode: what keeps the step within the target.

Two ways to know: a calibrated model predicts the step; without one the share is learned from how long steps took.
"""

from __future__ import annotations

from typing import Protocol

from foveal.engine.scheduling.pacing.correction import StepCorrection
from foveal.planning.latency.latency_model import LatencyModel
from foveal.planning.latency.step_work import StepWork

__all__ = ["LearnedShare", "PredictedShare", "PromptShare"]


class PromptShare(Protocol):
    """One contract test covers both."""

    def longest_chunk(self, work: StepWork, start: int, most: int) -> int:
        """Tokens of a prompt from `start` that may join a step that has `work` already: 0 to `most`."""

    def image_fits(self, work: StepWork, start: int, patches: int) -> bool:
        """Whether an image may be encoded in that step, and one token of its prompt computed."""

    def observe(self, work: StepWork, seconds: float, encode_s: float) -> None:
        """A step took `seconds` in all, `encode_s` of it for its images."""


class PredictedShare:
    """By the calibrated model, corrected for how fast the machine is now."""

    def __init__(self, model: LatencyModel, correction: StepCorrection, target_s: float) -> None:
        self._model = model
        self._correction = correction
        self._target_s = target_s

    @property
    def limit_s(self) -> float:
        """The target on the scale of uncorrected predictions."""
        return self._target_s / self._correction.factor

    def longest_chunk(self, work: StepWork, start: int, most: int) -> int:
        return self._model.largest_chunk(work, start, most, self.limit_s)

    def image_fits(self, work: StepWork, start: int, patches: int) -> bool:
        return self._model.step_s(work.with_row(start, 1, 1).with_images((patches,))) <= self.limit_s

    def observe(self, work: StepWork, seconds: float, encode_s: float) -> None:
        """The correction is told by its owner."""


FIRST_TOKENS = 64
MORE_TOKENS = 16
FEWER = 0.5
COMFORT = 0.9
"""Below this share of the target there is room for more."""

LEARN = 0.2
"""Weight of the latest reading."""


class LearnedShare:
    """Without a model: some more tokens after a step within the target, half as many after one beyond it."""

    def __init__(self, target_s: float, most_tokens: int) -> None:
        self._target_s = target_s
        self._most_tokens = most_tokens
        self.tokens = float(min(FIRST_TOKENS, most_tokens))
        """What prompts may take of the next step."""
        self._decode_s = 0.0
        self._patch_s: float | None = None

    def longest_chunk(self, work: StepWork, start: int, most: int) -> int:
        prompt_tokens = work.tokens - work.samples if work.tokens > work.samples else 0
        return max(0, min(most, int(self.tokens) - prompt_tokens))

    def image_fits(self, work: StepWork, start: int, patches: int) -> bool:
        """The first image ever is encoded to learn what one costs."""
        if self._patch_s is None:
            return True
        return self._decode_s + self._patch_s * (patches + sum(work.images)) <= self._target_s

    def observe(self, work: StepWork, seconds: float, encode_s: float) -> None:
        if seconds <= 0.0:
            return
        if work.images:
            found = encode_s / sum(work.images)
            self._patch_s = found if self._patch_s is None else self._patch_s + LEARN * (found - self._patch_s)
        prompt_tokens = work.tokens - work.samples
        if prompt_tokens <= 0 and not work.images:
            self._decode_s += LEARN * (seconds - self._decode_s) if self._decode_s else seconds
        if seconds - encode_s > self._target_s:
            self.tokens = max(0.0, self.tokens * FEWER - 1.0)
        elif seconds - encode_s < COMFORT * self._target_s and (prompt_tokens >= self.tokens / 2 or self.tokens < 1):
            self.tokens = min(float(self._most_tokens), self.tokens + MORE_TOKENS)
