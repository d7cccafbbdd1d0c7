"""The parts that keep an engine to its latency targets, as far as it has any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foveal.engine.scheduling.pacing.batch_limit import BatchLimit
from foveal.engine.scheduling.pacing.correction import StepCorrection
from foveal.engine.scheduling.pacing.first_token import FirstToken
from foveal.engine.scheduling.pacing.prompt_share import LearnedShare, PredictedShare
from foveal.engine.scheduling.pacing.step_pace import StepPace
from foveal.engine.scheduling.pacing.vision_wait import VisionWait
from foveal.planning.latency.latency_model import LatencyModel
from foveal.planning.latency.step_work import StepWork

__all__ = ["LatencyControl", "LatencyTargets"]


@dataclass(frozen=True, slots=True)
class LatencyTargets:
    """None where there is none."""

    tpot_s: float | None = None
    """Most seconds of a step in which requests decode."""
    ttft_s: float | None = None
    """Requests that cannot get their first token in that time are refused."""
    vision_wait_s: float = 0.05
    """Most seconds that a picture waits for others of its size; 0 never waits."""


class LatencyControl:
    """What exists depends on targets and calibration:

    | | with a calibration | without |
    |---|---|---|
    | pace | predicted | learned from steps |
    | batch limit | learned from steps | the same |
    | first token | predicted | not known: nobody is refused |
    | vision wait | predicted | not known: nobody waits |
    """

    def __init__(
        self,
        targets: LatencyTargets,
        model: LatencyModel | None,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        encoder_budget_tokens: int,
    ) -> None:
        self.targets = targets
        self.model = model
        self.correction = StepCorrection()
        self.num_refused = 0
        """Requests refused because their first token would come too late."""
        self.pace: StepPace | None = None
        self.batch_limit: BatchLimit | None = None
        self.first_token: FirstToken | None = None
        self.vision_wait: VisionWait | None = None
        if targets.tpot_s is not None:
            self.pace = StepPace(
                LearnedShare(targets.tpot_s, max_num_batched_tokens)
                if model is None
                else PredictedShare(model, self.correction, targets.tpot_s)
            )
            self.batch_limit = BatchLimit(targets.tpot_s, max_num_seqs)
        if model is not None:
            if targets.ttft_s is not None:
                self.first_token = FirstToken(model, self._factor, targets.tpot_s)
            if model.vision is not None and targets.vision_wait_s > 0.0:
                self.vision_wait = VisionWait(
                    lambda images: self._factor() * model.encode_s(images), targets.vision_wait_s, encoder_budget_tokens
                )

    @property
    def observes(self) -> bool:
        """Whether it learns anything from steps."""
        return self.model is not None or self.pace is not None

    def observe(
        self, rows: Sequence[tuple[int, int, int]], images: Iterable[int], seconds: float, encode_s: float
    ) -> None:
        """A step of these rows (start, tokens, logits rows) and images (patches) took `seconds`."""
        work = StepWork.of_rows(rows, images)
        if self.model is not None:
            self.correction.observe(self.model.step_s(work), seconds)
        if self.pace is not None:
            self.pace.observe(work, seconds, encode_s)
        if self.batch_limit is not None and not work.images and work.tokens == work.samples:
            self.batch_limit.observe(len(rows), seconds)

    def _factor(self) -> float:
        return self.correction.factor
