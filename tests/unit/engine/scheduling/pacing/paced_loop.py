"""A scheduler on a simulated machine whose steps take what a latency model says, times a factor."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.pacing.latency_control import LatencyControl, LatencyTargets
from foveal.engine.scheduling.plan import StepPlan
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.scheduler import Scheduler
from foveal.planning.latency.latency_model import LatencyModel
from foveal.planning.latency.step_work import StepWork
from unit.engine.scheduling.simulated_runner import SimulatedRunner

__all__ = ["MACHINE", "PacedLoop", "PacedStep"]

MACHINE = LatencyModel((4e-3, 3e-4, 1e-4, 5e-5, 9e-5, 1e-5, 2e-7, 3e-8), (10e-3, 2e-3, 1e-5, 1e-8))
"""10 ms per encoder call: batches pay."""


@dataclass(frozen=True, slots=True)
class PacedStep:
    plan: StepPlan
    seconds: float
    decode_rows: int
    prompt_tokens: int
    prompts_waited: bool
    """Somebody had prompt tokens left to compute."""
    images: int


class PacedLoop:
    """`known` is the model that the scheduler has, None if it was never calibrated."""

    def __init__(
        self,
        config: SchedulerConfig,
        targets: LatencyTargets,
        known: LatencyModel | None,
        factor: float = 1.0,
        *,
        checked: bool = False,
    ) -> None:
        """`checked` compares what every row sees with its history: slow for long prompts."""
        self.control = LatencyControl(
            targets,
            known,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            encoder_budget_tokens=config.encoder_budget_tokens,
        )
        self.scheduler = Scheduler(config, self.control)
        self.runner = SimulatedRunner(config, self.scheduler, lambda _: 7) if checked else None
        self.factor = factor
        self.now_s = 0.0
        self.steps: list[PacedStep] = []

    def add(self, *requests: Request) -> None:
        for request in requests:
            request.arrival_s = self.now_s
            self.scheduler.add(request, self.now_s)

    def step(self) -> StepPlan:
        waiting = self.scheduler.num_waiting
        plan = self.scheduler.schedule(self.now_s)
        requests = {row.request_id: self.scheduler.get(row.request_id) for row in plan.rows}
        decode = [row for row in plan.rows if (r := requests[row.request_id]) and r.output_token_ids]
        patches = [
            request.images[item.image_index].encode_tokens
            for item in plan.encode
            if (request := self.scheduler.get(item.request_id))
        ]
        work = StepWork.of_rows(((r.start, r.num_tokens, min(1, r.num_samples)) for r in plan.rows), patches)
        seconds = self.factor * MACHINE.step_s(work) if plan.rows else 0.0
        samples = (
            {row.request_id: [7] * row.num_samples for row in plan.rows if row.num_samples}
            if self.runner is None
            else self.runner.execute(plan)
        )
        self.scheduler.observe(plan, seconds, self.factor * MACHINE.encode_s(patches))
        self.now_s += seconds
        self.scheduler.commit(plan, samples, self.now_s)
        if self.runner is not None:
            self.scheduler.check_integrity()
        prompt_tokens = plan.num_tokens - sum(row.num_tokens for row in decode)
        if plan.rows:
            self.steps.append(
                PacedStep(plan, seconds, len(decode), prompt_tokens, bool(prompt_tokens or waiting), len(patches))
            )
        return plan

    def run(self, limit_steps: int = 5000) -> list[PacedStep]:
        while self.scheduler.has_unfinished:
            plan = self.step()
            if not plan.rows:
                assert self.scheduler.wake_s is not None
                self.now_s = max(self.now_s + 1e-4, self.scheduler.wake_s)
            assert len(self.steps) < limit_steps
        self.scheduler.check_integrity(idle=True)
        return self.steps
