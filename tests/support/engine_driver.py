"""Drive an EngineLoop without processes or sockets: add requests, step until they end, collect their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from foveal.core.clock import ManualClock
from foveal.core.sampling_params import SamplingParams
from foveal.engine.build import build_loop
from foveal.engine.config import EngineConfig
from foveal.engine.execution.guided import GuideFactory
from foveal.engine.loop import EngineLoop
from foveal.engine.memory.memory_reading import MemoryReader
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.models.base import LanguageModel
from foveal.models.image_input import PromptInput

__all__ = ["EngineDriver", "greedy"]


def greedy(max_tokens: int, **options: object) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, **options)  # type: ignore[arg-type]


class EngineDriver:
    """An engine on a manual clock; checks the block account after every step."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        guide_factory: GuideFactory | None = None,
        draft: LanguageModel | None = None,
        memory: MemoryReader | None = None,
        **config: object,
    ) -> None:
        options: dict[str, object] = {"num_kv_blocks": 400, "block_size": 4, "max_num_batched_tokens": 11}
        # How full this machine is must not change what a test sees.
        options |= {"memory_guard": memory is not None} | config
        self.clock = ManualClock()
        self.loop: EngineLoop = build_loop(
            EngineConfig(model="tiny", **options),  # type: ignore[arg-type]
            model,
            clock=self.clock,
            guide_factory=guide_factory,
            draft=draft,
            memory=memory,
        )
        self.loop.check_every_step = True
        self.tokens: dict[tuple[str, int], list[int]] = {}
        self.finish: dict[tuple[str, int], object] = {}
        self.events: list[object] = []
        self._count = 0

    def add(
        self, prompt: PromptInput, sampling: SamplingParams, *, seed: int = 0, deadline_s: float | None = None
    ) -> str:
        name = f"request-{self._count}"
        self._count += 1
        spec = self.loop.runner.model.spec
        request = Request(
            request_id=name,
            prompt_token_ids=list(prompt.token_ids),
            sampling=sampling,
            arrival_s=self.clock.now_s(),
            deadline_s=deadline_s,
            images=tuple(
                ImageRef(i.content_hash, i.num_tokens, i.num_tokens * spec.feature_width * 4, i.encode_tokens)
                for i in prompt.images
            ),
            spans=prompt.spans,
        )
        guide = self.loop.compile_guide(sampling) if sampling.guided is not None else None
        self.loop.add(request, prompt, seed=seed, guide=guide)
        for index in range(sampling.n):
            self.tokens[name, index] = []
        return name

    def step(self) -> None:
        self.clock.advance(0.01)
        for event in self.loop.step():
            self.events.append(event)
            self.tokens[event.request_id, event.index] += event.token_ids
            if event.finish_reason is not None:
                self.finish[event.request_id, event.index] = event.finish_reason

    def run(self, *, before_step: Callable[[int], None] | None = None, limit: int = 5000) -> None:
        for number in range(limit):
            if not self.loop.has_work:
                break
            if before_step is not None:
                before_step(number)
            self.step()
        assert not self.loop.has_work, f"not finished after {limit} steps"
        self.loop.check_idle()
        assert self.loop.runner.num_held == 0
        assert self.loop.speculator is None or self.loop.speculator.num_held == 0

    def answers(self, prompts: Sequence[PromptInput], sampling: SamplingParams) -> list[list[int]]:
        names = [self.add(prompt, replace(sampling)) for prompt in prompts]
        self.run()
        return [self.tokens[name, 0] for name in names]
