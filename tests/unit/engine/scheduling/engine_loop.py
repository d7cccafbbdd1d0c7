"""A scheduler with a simulated runner and a clock: what the engine loop does, in a few lines."""

from __future__ import annotations

from collections.abc import Callable

from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.events import TokenEvent
from foveal.engine.scheduling.plan import StepPlan
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.scheduler import Scheduler
from unit.engine.scheduling.simulated_runner import SimulatedRunner

__all__ = ["EngineLoop"]


class EngineLoop:
    def __init__(self, config: SchedulerConfig, sample: Callable[[Request], int] = lambda _: 7) -> None:
        self.scheduler = Scheduler(config)
        self.runner = SimulatedRunner(config, self.scheduler, sample)
        self.now_s = 0.0
        self.events: list[TokenEvent] = []
        """Of the last step."""
        self.ended: list[Request] = []

    def add(self, *requests: Request) -> None:
        for request in requests:
            self.scheduler.add(request, self.now_s)

    def step(self) -> StepPlan:
        """Plan, execute (which checks contexts and features), commit, check the accounts."""
        plan = self.scheduler.schedule(self.now_s)
        samples = self.runner.execute(plan)
        self.events = self.scheduler.commit(plan, samples, self.now_s)
        self.ended += [event.request for event in self.events if event.finish_reason is not None]
        self.scheduler.check_integrity()
        return plan

    def run(self, limit_steps: int = 1000) -> list[StepPlan]:
        """Step until idle."""
        plans = []
        while self.scheduler.has_unfinished:
            plans.append(self.step())
            assert len(plans) < limit_steps
        self.scheduler.check_integrity(idle=True)
        return plans
