"""Any sequence of adds, aborts, preemptions, time-outs and failures keeps every promise of the scheduler.

FOVEAL_SCHEDULER_STEPS=100000 pytest ... runs that many engine steps per configuration instead of a few hundred.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from foveal.core.priority import Priority
from foveal.engine.scheduling.config import SchedulerConfig
from unit.engine.scheduling.builders import config
from unit.engine.scheduling.simulation import EOS, Simulation

STEPS = int(os.environ.get("FOVEAL_SCHEDULER_STEPS", "300"))

SMALL = {
    "eos_token_ids": (EOS,),
    "max_model_len": 80,
    "max_waiting": 30,
    "num_blocks": 24,
    "encoder_budget_tokens": 40,
    "feature_cache_bytes": 120,
    "ageing_s": 3.0,
}
CONFIGS = {
    "budget 5": {"max_num_batched_tokens": 5},
    "budget 11": {"max_num_batched_tokens": 11, "watermark": 0.05},
    "budget 64": {},
    "blocks of 1": {"block_size": 1, "num_blocks": 80},
    "one sequence": {"max_num_seqs": 1, "max_num_batched_tokens": 7},
    "large cache": {"feature_cache_bytes": 10_000, "num_blocks": 200, "max_num_seqs": 16},
    "atomic spans, budget 5": {"atomic_image_spans": True, "max_num_batched_tokens": 5},
    "atomic spans, budget 64": {"atomic_image_spans": True, "num_blocks": 40},
    "no feature cache": {"feature_cache_bytes": 0},
    "no prefix cache": {"enable_prefix_caching": False, "max_num_batched_tokens": 11},
    "no KV cache": {"kv_cache": False, "max_num_batched_tokens": 30},
    "static batches": {"batching": "static", "max_num_batched_tokens": 11},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_random_traffic_keeps_blocks_contexts_and_features_right(name: str) -> None:
    simulation = Simulation(config(**{**SMALL, **CONFIGS[name]}), random.Random(name))
    while simulation.num_steps < STEPS:
        simulation.random_move()
        if simulation.num_steps % 500 == 499:
            simulation.drain(limit_steps=6000)
    simulation.drain(limit_steps=6000)
    # No starvation: with 30 waiting at most and 20 tokens each, nobody needs longer than this.
    assert simulation.longest_life_steps < 3000


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"no KV cache"}))
def test_random_drafts_keep_blocks_contexts_and_features_right(name: str) -> None:
    simulation = Simulation(config(**{**SMALL, **CONFIGS[name]}), random.Random(name), draft_share=0.7)
    while simulation.num_steps < STEPS:
        simulation.random_move()
        if simulation.num_steps % 500 == 499:
            simulation.drain(limit_steps=6000)
    simulation.drain(limit_steps=6000)
    assert simulation.longest_life_steps < 3000
    assert 0 < simulation.num_accepted < simulation.num_drafted


@settings(max_examples=20, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
class SchedulerMachine(RuleBasedStateMachine):
    """The same moves chosen by hypothesis, which shrinks a failure to its shortest form."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation: Simulation | None = None

    @initialize(name=st.sampled_from(sorted(CONFIGS)), seed=st.integers(0, 2**16), drafts=st.booleans())
    def start(self, name: str, seed: int, drafts: bool) -> None:
        settings_of_run: SchedulerConfig = config(**{**SMALL, **CONFIGS[name]})
        share = 0.7 if drafts and settings_of_run.kv_cache else 0.0
        self.simulation = Simulation(settings_of_run, random.Random(seed), draft_share=share)

    @rule(
        num_images=st.integers(0, 3),
        n=st.integers(1, 3),
        priority=st.sampled_from(list(Priority)),
        deadline=st.booleans(),
        salted=st.booleans(),
    )
    def add(self, num_images: int, n: int, priority: Priority, deadline: bool, salted: bool) -> None:
        self.simulation.add(num_images, n, priority, deadline=deadline, salted=salted)

    @rule()
    def abort(self) -> None:
        self.simulation.abort()

    @rule()
    def preempt(self) -> None:
        self.simulation.preempt()

    @rule()
    def expire(self) -> None:
        self.simulation.expire()

    @rule(steps=st.integers(1, 8), interfere=st.booleans())
    def step(self, steps: int, interfere: bool) -> None:
        for _ in range(steps):
            self.simulation.step(interfere=interfere)

    @rule()
    def fail(self) -> None:
        self.simulation.step(fail=True)

    def teardown(self) -> None:
        if self.simulation is not None:
            self.simulation.drain(limit_steps=6000)


TestSchedulerMachine = SchedulerMachine.TestCase
