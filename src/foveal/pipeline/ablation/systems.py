"""What a stage runs on: transformers' `generate`, or an engine loop. Both serve clients that ask again when answered."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.loop import EngineLoop
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.pipeline.ablation.stages import Attention
from foveal.pipeline.ablation.traffic import Asked

__all__ = ["BaselineSystem", "EngineSystem", "Served", "System"]


@dataclass(frozen=True)
class Served:
    """One pass over the traffic. Seconds."""

    ttft_s: tuple[float, ...]
    """Per request, from when its client asked."""
    wall_s: float
    cpu_s: float
    token_ids: tuple[tuple[int, ...], ...]
    rows_per_step: float
    """Requests in a step, on average."""

    @property
    def tokens_per_s(self) -> float:
        return sum(len(ids) for ids in self.token_ids) / self.wall_s

    @property
    def requests_per_s(self) -> float:
        return len(self.token_ids) / self.wall_s


class System(Protocol):
    def serve(self, traffic: Sequence[Asked], clients: int) -> Served:
        """Greedy, the end token ignored. Each client has one request in flight."""


class BaselineSystem:
    """`generate`, one request at a time; others wait."""

    def __init__(self, model: Any, attention: Attention) -> None:
        """`model` is a transformers model; several systems may share it."""
        self._model, self._attention = model, attention

    @torch.inference_mode()
    def serve(self, traffic: Sequence[Asked], clients: int) -> Served:
        self._model.set_attn_implementation(self._attention)
        used, started = _cpu_s(), time.perf_counter()
        ended: list[float] = []
        ttft, answers = [], []
        for number, asked in enumerate(traffic):
            arrived = started if number < clients else ended[number - clients]
            first, token_ids = self._answer(asked)
            ended.append(time.perf_counter())
            ttft.append(first - arrived)
            answers.append(token_ids)
        return Served(tuple(ttft), ended[-1] - started, _cpu_s() - used, tuple(answers), 1.0)

    def _answer(self, asked: Asked) -> tuple[float, tuple[int, ...]]:
        first: list[float] = []

        def note_time(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            if not first:
                first.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        ids = torch.tensor([asked.prompt.token_ids])
        pictures = {}
        if asked.prompt.images:
            arrays = [image.arrays for image in asked.prompt.images]
            pictures = {name: torch.stack([torch.from_numpy(one[name]) for one in arrays]) for name in arrays[0]}
        output = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **pictures,
            max_new_tokens=asked.new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=[note_time],
        )
        return first[0], tuple(output[0, ids.shape[1] :].tolist())


class EngineSystem:
    """An engine loop. Its caches are empty at the beginning of each pass."""

    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop
        model = loop.runner.model
        self._feature_row_bytes = model.spec.feature_width * model.dtype.itemsize
        self._asked = 0

    def serve(self, traffic: Sequence[Asked], clients: int) -> Served:
        loop = self._loop
        loop.scheduler.clear_caches()
        waiting = deque(self._request(asked) for asked in traffic)
        requests = [request for request, _ in waiting]
        asked_s: dict[str, float] = {}
        first_s: dict[str, float] = {}
        steps = rows = in_flight = 0
        used, started = _cpu_s(), time.perf_counter()
        while waiting or loop.has_work:
            while waiting and in_flight < clients:
                request, asked = waiting.popleft()
                asked_s[request.request_id] = time.perf_counter()
                loop.add(request, asked.prompt)
                in_flight += 1
            events = loop.step()
            now = time.perf_counter()
            steps += 1
            rows += len(events)
            for event in events:
                first_s.setdefault(event.request_id, now)
                in_flight -= event.finish_reason is not None
        wall_s = time.perf_counter() - started
        names = [request.request_id for request in requests]
        return Served(
            tuple(first_s[name] - asked_s[name] for name in names),
            wall_s,
            _cpu_s() - used,
            tuple(tuple(request.output_token_ids) for request in requests),
            rows / steps,
        )

    def _request(self, asked: Asked) -> tuple[Request, Asked]:
        self._asked += 1
        prompt = asked.prompt
        request = Request(
            request_id=f"ablation-{self._asked}",
            prompt_token_ids=list(prompt.token_ids),
            sampling=SamplingParams(max_tokens=asked.new_tokens, temperature=0.0, ignore_eos=True),
            arrival_s=0.0,
            images=tuple(
                ImageRef(i.content_hash, i.num_tokens, i.num_tokens * self._feature_row_bytes, i.encode_tokens)
                for i in prompt.images
            ),
            spans=prompt.spans,
        )
        return request, asked


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
