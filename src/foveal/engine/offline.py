"""The engine in this process, without front end: for measuring. Prompts are token ids, answers too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.build import build_engine_loop
from foveal.engine.config import EngineConfig
from foveal.engine.loop import EngineLoop
from foveal.engine.scheduling.request import Request
from foveal.kernels.attention_batch import KVCache
from foveal.kernels.native.linear import NativeLinear
from foveal.models.base import LanguageModel, ModelStep
from foveal.models.image_input import PromptInput

__all__ = ["Answers", "OfflineEngine"]


@dataclass(frozen=True)
class Answers:
    """What one batch of prompts took. Times in seconds since all were queued."""

    token_ids: list[list[int]]
    first_s: list[float]
    """Per prompt, until its first token."""
    total_s: float
    steps: int


class OfflineEngine:
    """Continuous batching over one loop; greedy, the end token ignored. Not thread-safe."""

    def __init__(self, config: EngineConfig, loop: EngineLoop | None = None) -> None:
        """Loads the model of `config` unless a loop is given. Raises what `build_engine_loop` raises."""
        self.config = config
        self.loop = loop or build_engine_loop(config)
        self._asked = 0

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        *,
        when_decoding: Callable[[], None] | None = None,
    ) -> Answers:
        """`new_tokens` for each prompt, all queued at once. `when_decoding` is called when all have their first token."""
        sampling = SamplingParams(max_tokens=new_tokens, temperature=0.0, ignore_eos=True)
        requests = []
        for prompt in prompts:
            self._asked += 1
            requests.append(Request(f"offline-{self._asked}", list(prompt), sampling, arrival_s=0.0))
        asked = [(request, PromptInput(request.prompt_token_ids)) for request in requests]
        return self.answer(asked, when_decoding=when_decoding)

    def answer(
        self,
        requests: Sequence[tuple[Request, PromptInput]],
        *,
        when_decoding: Callable[[], None] | None = None,
    ) -> Answers:
        """Like `generate`, of requests with sampling and pictures of their own."""
        first_s: dict[str, float] = {}
        steps, started = 0, time.perf_counter()
        for request, prompt in requests:
            self.loop.add(request, prompt)
        while self.loop.has_work:
            events = self.loop.step()
            steps += 1
            now_s = time.perf_counter() - started
            for event in events:
                if event.token_ids:
                    first_s.setdefault(event.request_id, now_s)
            if when_decoding is not None and len(first_s) == len(requests):
                when_decoding()
                when_decoding = None
        total_s = time.perf_counter() - started
        return Answers(
            [list(request.output_token_ids) for request, _ in requests],
            [first_s.get(request.request_id, total_s) for request, _ in requests],
            total_s,
            steps,
        )

    def logits(self, prompt: Sequence[int]) -> torch.Tensor:
        """float32 [len(prompt), vocab]: every position, through the engine's own steps and KV cache."""
        runner = self.loop.runner
        recorded = _Recording(runner.model)
        runner.model = recorded  # type: ignore[assignment]
        try:
            self.generate([prompt], 1)
        finally:
            runner.model = recorded.model
        return torch.cat([runner.model.compute_logits(hidden) for hidden in recorded.hidden])[: len(prompt)]

    @property
    def weight_bytes(self) -> int:
        """What a step with one token reads of the text model's weights, the head included."""
        model = self.loop.runner.model
        head = model._head  # type: ignore[attr-defined]
        native = getattr(model, "native", None)
        if native is not None:
            assert isinstance(head, NativeLinear)
            return int(native.num_weight_bytes + head.matrix.num_bytes)
        stack = model.hf_model.get_decoder()  # type: ignore[attr-defined]
        table = stack.get_input_embeddings().weight
        output = model.hf_model.get_output_embeddings().weight  # type: ignore[attr-defined]
        return sum(p.nbytes for p in stack.parameters() if p is not table) + int(output.nbytes)

    @property
    def kv_bytes_per_token(self) -> int:
        pool = self.loop.runner.kv_cache
        return pool.nbytes // pool.key.shape[1]

    @property
    def decoder(self) -> str:
        """Which implementation runs: native, fused or hf."""
        return str(self.loop.runner.model.decoder)  # type: ignore[attr-defined]

    @property
    def kv_dtype(self) -> str:
        return str(self.loop.runner.kv_cache.key.dtype).removeprefix("torch.")


class _Recording:
    """The model, remembering the hidden states that it returned."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.hidden: list[torch.Tensor] = []

    def forward(self, step: ModelStep, kv_cache: KVCache) -> torch.Tensor:
        hidden = self.model.forward(step, kv_cache)
        self.hidden.append(hidden.clone())
        return hidden

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)
