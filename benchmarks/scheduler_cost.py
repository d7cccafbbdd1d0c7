"""What scheduling costs per step, with a runner that returns at once.

    python benchmarks/scheduler_cost.py

Steady state: R requests run, each gets one token per step; finished ones are replaced, so admission, prefix lookup and
release are included.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.core.sampling_params import SamplingParams
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.scheduler import Scheduler

RUNNING = (1, 16, 64, 256, 1000)
PROMPT_TOKENS = 128
OUTPUT_TOKENS = 64
STEPS = 300


class Load:
    """Keeps `running` requests in the scheduler; prompts share a prefix of 64 tokens."""

    def __init__(self, running: int) -> None:
        blocks = (PROMPT_TOKENS + OUTPUT_TOKENS) // 16 + 2
        self.scheduler = Scheduler(
            SchedulerConfig(
                num_blocks=running * blocks + 64,
                max_num_seqs=running,
                max_num_batched_tokens=running + 512,
                max_waiting=2 * running + 16,
            )
        )
        self.running = running
        self.count = 0
        self.random = random.Random(0)
        self.prefix = [self.random.randrange(50_000) for _ in range(64)]

    def add(self, now_s: float) -> None:
        tail = [self.random.randrange(50_000) for _ in range(PROMPT_TOKENS - len(self.prefix))]
        # Lengths differ, so that requests do not all end in one step.
        sampling = SamplingParams(max_tokens=self.random.randint(OUTPUT_TOKENS // 2, OUTPUT_TOKENS), ignore_eos=True)
        self.scheduler.add(Request(f"r{self.count}", self.prefix + tail, sampling, now_s), now_s)
        self.count += 1

    def step(self, now_s: float) -> tuple[float, float, int]:
        """(schedule s, commit s, rows)"""
        while self.scheduler.num_running + self.scheduler.num_waiting < self.running:
            self.add(now_s)
        started = time.perf_counter()
        plan = self.scheduler.schedule(now_s)
        planned = time.perf_counter()
        samples = {row.request_id: [7] for row in plan.rows if row.num_samples}
        again = time.perf_counter()
        self.scheduler.commit(plan, samples, now_s)
        return planned - started, time.perf_counter() - again, len(plan.rows)


def main() -> None:
    table = Table(title="scheduler cost per step")
    for column in ("running", "schedule us", "commit us", "both us", "us per running request"):
        table.add_column(column, justify="right")
    rows = []
    for running in RUNNING:
        load = Load(running)
        now_s = 0.0
        for _ in range(40):
            now_s += 0.01
            load.step(now_s)
        times = []
        for _ in range(STEPS):
            now_s += 0.01
            times.append(load.step(now_s))
        schedule, commit = (statistics.median(t[k] for t in times) * 1e6 for k in (0, 1))
        both = statistics.median(t[0] + t[1] for t in times) * 1e6
        rows.append({"running": running, "schedule_us": schedule, "commit_us": commit, "both_us": both})
        table.add_row(str(running), f"{schedule:.0f}", f"{commit:.0f}", f"{both:.0f}", f"{both / running:.2f}")
    Console().print(table)
    print("written to", write_result("scheduler_cost", rows))


if __name__ == "__main__":
    main()
