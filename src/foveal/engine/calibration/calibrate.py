"""Measure designed steps on this machine and fit the latency model to them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from foveal.core.errors import ConfigurationError
from foveal.engine.build import build_loop, load_engine_model
from foveal.engine.calibration.design import DesignLimits, decoder_design
from foveal.engine.calibration.latency_key import latency_key
from foveal.engine.calibration.picture_design import picture_design
from foveal.engine.calibration.step_bench import StepBench
from foveal.engine.config import EngineConfig
from foveal.engine.loop import EngineLoop
from foveal.planning.latency.fit import MeasuredStep, fit_error, fit_latency_model
from foveal.planning.latency.latency_file import Calibration
from foveal.planning.latency.step_work import StepWork

__all__ = ["calibrate"]

MOST_KV_BYTES = 512 << 20
"""KV that the design touches: more would only measure the same bandwidth again."""

FEWEST_ROUNDS = 3

OnProgress = Callable[[str, int, int], None]
"""What is measured, how many measurements are done, how many there will be."""


def calibrate(
    config: EngineConfig,
    *,
    rounds: int = 7,
    budget_s: float = 180.0,
    pictures: bool = True,
    cpu_time: bool = False,
    on_progress: OnProgress = lambda *_: None,
) -> Calibration:
    """Load the model as the engine would and measure `rounds` times, or as often as fits in `budget_s` (at least 3).

    `cpu_time` counts the processor time of the main thread instead of the clock: what others do on the machine meanwhile
    is left out, but so are waits for the other threads. Raises ModelLoadError or ConfigurationError.
    """
    if rounds < FEWEST_ROUNDS:
        raise ConfigurationError(f"rounds is {rounds}; medians need at least {FEWEST_ROUNDS}. Raise --rounds.")
    on_progress("loading", 0, 1)
    model, processor = load_engine_model(config)
    loop = build_loop(replace(config, latency_model="none"), model)
    points = picture_design(processor) if pictures and model.spec.supports_images else []
    limits = _limits(loop)
    design = decoder_design(limits)
    clock = time.thread_time if cpu_time else time.perf_counter
    bench = StepBench(loop.runner, min(limits.kv_tokens, loop.scheduler.config.pool_tokens), config.threads, clock)
    actions: list[tuple[str, StepWork, bool, Callable[[], float]]] = [
        (p.name, p.work, p.held_out, lambda p=p: bench.step_s(p))
        for p in design  # type: ignore[misc]
    ]
    actions += [
        (p.name, StepWork(images=p.patches), p.held_out, lambda p=p: bench.encode_s(p.images))  # type: ignore[misc]
        for p in points
    ]
    times: list[list[float]] = [[] for _ in actions]
    started = time.perf_counter()
    done, total, bandwidth = 0, len(actions) * (rounds + 1), []
    rng = random.Random(0)
    for round_number in range(rounds + 1):  # the first one warms up
        if round_number > FEWEST_ROUNDS and time.perf_counter() - started > budget_s:
            break
        bandwidth.append(bench.bandwidth_bytes_s())
        # Shuffled anew: what else the machine does then hits no point in particular.
        for index in rng.sample(range(len(actions)), len(actions)):
            on_progress(actions[index][0], done, total)
            seconds = actions[index][3]()
            if round_number:
                times[index].append(seconds)
            done += 1
    steps = [
        MeasuredStep(name, work, *_middle(times[index]), held_out=held_out)
        for index, (name, work, held_out, _) in enumerate(actions)
    ]
    fitted = fit_latency_model(steps)
    held_out_steps = [step for step in steps if step.held_out]
    return Calibration(
        key=latency_key(config, model),
        model_name=config.model_name,
        model=fitted,
        weight_bytes=_weight_bytes(loop),
        bandwidth_bytes_s=statistics.median(bandwidth),
        rounds=len(times[0]),
        seconds=time.perf_counter() - started,
        date=time.strftime("%Y-%m-%d"),
        decoder_error=fit_error(fitted, [step for step in held_out_steps if not step.work.images]),
        vision_error=fit_error(fitted, [step for step in held_out_steps if step.work.images]),
        steps=tuple(steps),
    )


def _limits(loop: EngineLoop) -> DesignLimits:
    config = loop.scheduler.config
    token_bytes = loop.runner.kv_cache.nbytes // (config.pool_tokens + config.block_size)
    return DesignLimits(
        tokens=config.max_num_batched_tokens,
        seqs=config.max_num_seqs,
        context=config.max_model_len,
        # A block per row may be partly empty.
        kv_tokens=min(config.pool_tokens, MOST_KV_BYTES // token_bytes) - config.max_num_seqs * config.block_size,
    )


def _middle(seconds: Sequence[float]) -> tuple[float, float]:
    """Median of the faster half, and the median absolute deviation of all as a share of their median.

    Of the faster half, because what else the machine does only ever makes a step longer.
    """
    median = statistics.median(seconds)
    faster = sorted(seconds)[: (len(seconds) + 1) // 2]
    return statistics.median(faster), statistics.median(abs(value - median) for value in seconds) / median


def _weight_bytes(loop: EngineLoop) -> int:
    """What a step reads of the text model's weights."""
    model = loop.runner.model
    native = getattr(model, "native", None)
    if native is not None:
        return int(native.num_weight_bytes)
    stack = getattr(model, "_stack", None)
    return sum(p.nbytes for p in stack.layers.parameters()) if hasattr(stack, "layers") else 0
