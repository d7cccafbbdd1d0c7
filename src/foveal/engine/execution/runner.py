"""Execute one step plan on a model: copy blocks, encode images, run the decoder, sample."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from foveal.core.errors import IntegrityError
from foveal.engine.execution.batch_builder import build_step
from foveal.engine.execution.block_tables import BlockTables
from foveal.engine.execution.guided import Guide
from foveal.engine.execution.prompt_state import PromptState
from foveal.engine.execution.sampler import Sampler
from foveal.engine.execution.sampling.row import SampledToken, SamplingRow
from foveal.engine.execution.verification import SampledPositions
from foveal.engine.scheduling.plan import BlockCopy, EncodeItem, StepPlan
from foveal.engine.scheduling.request import Request
from foveal.kernels.attention_batch import KVCache
from foveal.models.base import LanguageModel
from foveal.models.image_input import PromptInput
from foveal.models.vision_batching import batch_images

__all__ = ["Runner", "StepResult"]


@dataclass(slots=True)
class StepResult:
    """Sampled tokens by request id: one list entry per choice (see ScheduledRow.num_samples), or the tokens that a row
    with drafts yields."""

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
        self._rows: dict[str, SamplingRow] = {}
        self._features: dict[bytes, torch.Tensor] = {}
        self._tables = BlockTables()

    def add(self, request: Request, prompt: PromptInput, *, seed: int, guide: Guide | None = None) -> None:
        """Take what the scheduler does not hold of a new request: pixels, positions, sampling state."""
        positions, delta = self.model.rope_positions(prompt)
        self._states[request.group_id] = PromptState.create(
            prompt, positions, delta, bidirectional=self.model.spec.atomic_image_spans
        )
        self._rows[request.request_id] = SamplingRow(
            params=request.sampling,
            prompt_token_ids=request.prompt_token_ids,
            output_token_ids=request.output_token_ids,
            seed=seed,
            choices=tuple(range(request.sampling.n)),
            eos_token_ids=self.model.spec.eos_token_ids,
            guide=guide,
        )

    def fork(self, parent_id: str, child: Request) -> None:
        """A prompt with n > 1 completed: the child samples on by itself from here."""
        row = self._rows[parent_id]
        self._rows[child.request_id] = replace(
            row,
            output_token_ids=child.output_token_ids,
            choices=(child.index,),
            guide=None if row.guide is None else row.guide.clone(),
            _history=None,
        )

    def accept(self, request: Request, token_ids: Sequence[int]) -> bool:
        """Sampled tokens became part of the output. False if the request's grammar cannot go on from here."""
        row = self._rows[request.request_id]
        row.choices = (request.index,)
        if row.guide is None:
            return True
        for token_id in token_ids:
            row.guide.advance(token_id)
        return row.guide.error is None

    @property
    def sampling_rows(self) -> Mapping[str, SamplingRow]:
        """By request id."""
        return self._rows

    def cached_feature(self, content_hash: bytes) -> torch.Tensor | None:
        """[num_tokens, feature_width] of an image, if it is still there."""
        return self._features.get(content_hash)

    def forget_choice(self, request_id: str) -> None:
        self._rows.pop(request_id, None)
        self._tables.forget(request_id)

    def forget_group(self, group_id: str) -> None:
        """Drop what all choices of a request share. Its image features stay cached until the plan evicts them."""
        self._states.pop(group_id, None)

    def drop_features(self, content_hashes: Iterable[bytes]) -> None:
        for content_hash in content_hashes:
            self._features.pop(content_hash, None)

    @property
    def num_held(self) -> int:
        """Prompts, sampling rows and block tables held: 0 when idle."""
        return len(self._states) + len(self._rows) + len(self._tables)

    @property
    def feature_hashes(self) -> frozenset[bytes]:
        return frozenset(self._features)

    @torch.inference_mode()
    def execute(self, plan: StepPlan, requests: Mapping[str, Request]) -> StepResult:
        result = StepResult()
        self._copy_blocks(plan.copies)
        self.drop_features(plan.evicted_features)
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
            self._tables,
            block_size=self.kv_cache.block_size,
            position_rows=self._position_rows(plan, requests),
            device=self.model.device,
        )
        hidden = self.model.forward(step, self.kv_cache)
        positions = SampledPositions.of(plan.rows, step.attention.q_starts, self._rows)
        if positions.tokens:
            # Only rows that sample need logits: with a vocabulary of 49k the head is a quarter of a small model.
            logits = self.model.compute_logits(hidden[torch.tensor(positions.tokens, device=hidden.device)])
            result.samples = positions.accept(self._sampler.sample(logits, positions.sampling))
        return result

    def _feature(self, content_hash: bytes) -> torch.Tensor:
        try:
            return self._features[content_hash]
        except KeyError:
            raise IntegrityError(
                f"features of image {content_hash.hex()} were dropped while a row needs them"
            ) from None

    def _position_rows(self, plan: StepPlan, requests: Mapping[str, Request]) -> int:
        return int(self._states[requests[plan.rows[0].request_id].group_id].positions.shape[0])

    def _copy_blocks(self, copies: Sequence[BlockCopy]) -> None:
        size = self.kv_cache.block_size
        for copy in copies:
            source, target = slice(copy.source * size, (copy.source + 1) * size), copy.target * size
            for pool in self.kv_cache.tensors:
                pool[:, target : target + size] = pool[:, source]

    def _encode(self, items: Sequence[EncodeItem], requests: Mapping[str, Request]) -> None:
        images = [self._states[requests[item.request_id].group_id].prompt.images[item.image_index] for item in items]
        for batch in batch_images(images):
            features = self.model.encode_images([images[i] for i in batch])
            for i, feature in zip(batch, features, strict=True):
                self._features[items[i].content_hash] = feature
