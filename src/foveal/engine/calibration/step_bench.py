"""Runs steps of given shapes on a real runner, without the requests that would lead to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.calibration.design import StepPoint
from foveal.engine.execution.runner import Runner
from foveal.engine.scheduling.plan import ScheduledRow, StepPlan
from foveal.engine.scheduling.request import Request
from foveal.kernels.native.extension import native_kernels
from foveal.models.image_input import ImageInput, PromptInput
from foveal.models.vision_batching import batch_images

__all__ = ["StepBench"]

_BANDWIDTH_BYTES = 192 << 20
_TOKEN = 5


class StepBench:
    """Writes to the KV pool: only for an engine that serves nobody."""

    def __init__(self, runner: Runner, kv_tokens: int, threads: int, clock: Callable[[], float]) -> None:
        """The first `kv_tokens` of the pool are filled: pages never written would be read from one shared zero page."""
        self._clock = clock
        self._runner = runner
        self._threads = threads
        slots = kv_tokens + runner.kv_cache.block_size
        for tensor in runner.kv_cache.tensors:
            tensor[:, :slots].fill_(0.01 if tensor.is_floating_point() else 3)
        self._words = np.ones(_BANDWIDTH_BYTES // 8, dtype=np.uint64)

    def step_s(self, point: StepPoint) -> float:
        """Seconds of one step: batch, forward pass, logits, greedy sampling."""
        plan, requests = self._plan(point)
        for request in requests.values():
            self._runner.add(request, PromptInput(request.prompt_token_ids), seed=0)
        try:
            started = self._clock()
            self._runner.execute(plan, requests)
            return self._clock() - started
        finally:
            for name in requests:
                self._runner.forget_choice(name)
                self._runner.forget_group(name)

    def encode_s(self, images: Sequence[ImageInput]) -> float:
        """Seconds of encoding them, in the batches that a step would make."""
        started = self._clock()
        with torch.inference_mode():
            for batch in batch_images(images):
                self._runner.model.encode_images([images[index] for index in batch])
        return self._clock() - started

    def bandwidth_bytes_s(self) -> float:
        """One pass over memory that no cache holds."""
        kernels = native_kernels()
        started = time.perf_counter()
        if kernels is not None:
            kernels.read_all(self._words, self._threads)
        else:
            torch.from_numpy(self._words.view(np.float64)).sum()
        return self._words.nbytes / (time.perf_counter() - started)

    def _plan(self, point: StepPoint) -> tuple[StepPlan, dict[str, Request]]:
        size = self._runner.kv_cache.block_size
        requests, rows, block = {}, [], 0
        for index, (start, count, samples) in enumerate(point.rows):
            name = f"calibration-{index}"
            blocks = -(-(start + count) // size)
            request = Request(
                request_id=name,
                prompt_token_ids=[_TOKEN] * (start + count),
                sampling=SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True),
                arrival_s=0.0,
                block_table=list(range(block, block + blocks)),
            )
            block += blocks
            requests[name] = request
            rows.append(ScheduledRow(name, start, count, samples))
        return StepPlan(rows=tuple(rows)), requests
