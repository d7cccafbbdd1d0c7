"""Execute one step plan on a model: copy blocks, encode images, run the decoder, sample."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from foveal.core.errors import IntegrityError
from foveal.engine.execution.batch_builder import build_step
from foveal.engine.execution.guided import Guide
from foveal.engine.execution.prompt_state import PromptState
from foveal.engine.execution.sampler import SampledToken, Sampler, SamplingRow
from foveal.engine.scheduling.plan import BlockCopy, EncodeItem, StepPlan
from foveal.engine.scheduling.request import Request
from foveal.kernels.attention_batch import KVCache
from foveal.models.base import LanguageModel
from foveal.models.image_input import PromptInput
from foveal.models.vision_batching import plan_encode_batches

__all__ = ["Runner", "StepResult"]


@dataclass(slots=True)
class StepResult:
    """Sampled tokens by request id: one list entry per choice (see ScheduledRow.num_samples)."""

    samples: dict[str, list[SampledToken]] = field(default_factory=dict)
    encode_s: float = 0.0
    encoded_images: int = 0


class Runner:
    """Owns every tensor: the KV pool, image features, prompt positions. Decides nothing."""

    def __init__(self, model: LanguageModel, kv_cache: KVCache, sampler: Sampler) -> None:
        self.model = model
        self.kv_cache = kv_cache
        self._sampler = sampler
        self._states: dict[str, PromptState] = {}
        self._guides: dict[str, Guide] = {}
        self._features: dict[bytes, torch.Tensor] = {}

    def add(self, group_id: str, prompt: PromptInput, *, seed: int, guide: Guide | None = None) -> None:
        positions, delta = self.model.rope_positions(prompt)
        self._states[group_id] = PromptState.create(
            prompt, seed, positions, delta, bidirectional=self.model.spec.atomic_image_spans
        )
        if guide is not None:
            self._guides[group_id] = guide

    def forget_group(self, group_id: str) -> None:
        """Drop what belongs to a request with all of its choices."""
        self._states.pop(group_id, None)

    def forget_choice(self, request_id: str) -> None:
        self._guides.pop(request_id, None)

    def fork(self, request_id: str, child_id: str) -> None:
        """Called before `execute` results are committed for a prompt with n > 1: the child needs a guide of its own."""
        if (guide := self._guides.get(request_id)) is not None:
            self._guides[child_id] = guide.clone()

    def advance_guide(self, request_id: str, token_id: int) -> None:
        if (guide := self._guides.get(request_id)) is not None:
            guide.advance(token_id)

    @property
    def num_states(self) -> int:
        return len(self._states) + len(self._guides)

    @property
    def feature_hashes(self) -> frozenset[bytes]:
        return frozenset(self._features)

    @torch.inference_mode()
    def execute(self, plan: StepPlan, requests: Mapping[str, Request]) -> StepResult:
        result = StepResult()
        self._copy_blocks(plan.copies)
        for content_hash in plan.evicted_features:
            self._features.pop(content_hash, None)
        if plan.encode:
            started = time.perf_counter()
            self._encode(plan.encode, requests)
            result.encode_s = time.perf_counter() - started
            result.encoded_images = len(plan.encode)
        if not plan.rows:
            return result
        step = build_step(
            plan.rows,
            requests,
            self._states,
            self._feature,
            block_size=self.kv_cache.block_size,
            position_rows=self._position_rows(plan, requests),
            device=self.model.device,
        )
        hidden = self.model.forward(step, self.kv_cache)
        sampled = [i for i, row in enumerate(plan.rows) if row.num_samples]
        if sampled:
            # Only rows that sample need logits: with a vocabulary of 49k the head is a quarter of a small model.
            last = torch.tensor([step.attention.q_starts[i + 1] - 1 for i in sampled], device=hidden.device)
            logits = self.model.compute_logits(hidden[last])
            rows = [self._sampling_row(requests[plan.rows[i].request_id], plan.rows[i].num_samples) for i in sampled]
            tokens = self._sampler.sample(logits, rows)
            result.samples = {plan.rows[i].request_id: row for i, row in zip(sampled, tokens, strict=True)}
        return result

    def _feature(self, content_hash: bytes) -> torch.Tensor:
        try:
            return self._features[content_hash]
        except KeyError:
            raise IntegrityError(f"features of image {content_hash.hex()} were dropped while a row needs them") from None

    def _position_rows(self, plan: StepPlan, requests: Mapping[str, Request]) -> int:
        return int(self._states[requests[plan.rows[0].request_id].group_id].positions.shape[0])

    def _copy_blocks(self, copies: Sequence[BlockCopy]) -> None:
        size = self.kv_cache.block_size
        for copy in copies:
            source, target = slice(copy.source * size, (copy.source + 1) * size), copy.target * size
            for pool in (self.kv_cache.key, self.kv_cache.value):
                pool[:, target : target + size] = pool[:, source]

    def _encode(self, items: Sequence[EncodeItem], requests: Mapping[str, Request]) -> None:
        images = [
            self._states[requests[item.request_id].group_id].prompt.images[item.image_index] for item in items
        ]
        for batch in plan_encode_batches(images):
            features = self.model.encode_images([images[i] for i in batch])
            for i, feature in zip(batch, features, strict=True):
                self._features[items[i].content_hash] = feature

    def _sampling_row(self, request: Request, num_samples: int) -> SamplingRow:
        return SamplingRow(
            params=request.sampling,
            prompt_token_ids=request.prompt_token_ids,
            output_token_ids=request.output_token_ids,
            choices=tuple(range(request.index, request.index + num_samples)),
            seed=self._states[request.group_id].seed,
            eos_token_ids=self.model.spec.eos_token_ids,
            guide=self._guides.get(request.request_id),
        )
