"""Greedy answers and teacher-forced logits of many prompts in few forward passes.

Prompts with the same picture share its encoding, and one computation of their common beginning: block tables may point
to the same slots. The expected answer is fed behind the prompt, as a draft: its logits are what teacher forcing asks
for, and wherever they agree with the draft the greedy answer is already known, so a model that is right needs no decode
step. Both are exactly what separate prompts and step-by-step decoding would give.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from foveal.core.errors import PromptTooLongError
from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.batch_builder import build_step
from foveal.engine.execution.block_tables import BlockTables
from foveal.engine.execution.kv_pool import allocate_kv_cache
from foveal.engine.execution.prompt_state import PromptState
from foveal.engine.scheduling.plan import ScheduledRow
from foveal.engine.scheduling.request import Request
from foveal.kernels.attention_batch import KVCache
from foveal.models.base import LanguageModel
from foveal.models.image_input import PromptInput
from foveal.models.vision_batching import batch_images

__all__ = ["Completion", "DraftedPrompt", "VerifiedDecoder"]


@dataclass(frozen=True, slots=True)
class DraftedPrompt:
    """A prompt with the answer that is expected, its end of turn included (one token at least)."""

    prompt: PromptInput
    draft: tuple[int, ...]


@dataclass(slots=True)
class Completion:
    """Greedy tokens, without the end of turn; the most likely token at each draft position; their logits if kept."""

    token_ids: list[int]
    top1: list[int]
    logits: torch.Tensor | None = None
    """[len(draft), vocab] float32."""


@dataclass(slots=True)
class _Sequence:
    request: Request
    state: PromptState
    drafted: DraftedPrompt
    shared: int
    """The first positions that another sequence of the group computes, or 0."""
    produced: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def prompt_length(self) -> int:
        return len(self.drafted.prompt.token_ids)


class VerifiedDecoder:
    """Holds a KV pool with blocks of one token, as large as the largest call needed."""

    def __init__(self, model: LanguageModel, kv_format: torch.dtype | None = None) -> None:
        """`kv_format`: the KV cache's number format; None for the model's."""
        self._model = model
        self._kv_format = kv_format or model.dtype
        self._pool: KVCache | None = None

    @torch.inference_mode()
    def complete(
        self, groups: Sequence[Sequence[DraftedPrompt]], *, max_tokens: int, keep_logits: bool = False
    ) -> list[list[Completion]]:
        """Each group's prompts hold the same pictures. Raises PromptTooLongError."""
        sequences: list[list[_Sequence]] = []
        slots = itertools.count()
        for number, group in enumerate(groups):
            sequences.append(self._lay_out(number, group, max_tokens, slots))
        pool = self._pool_of(next(slots))
        features = self._encode(groups)
        completions = self._verify([s for group in sequences for s in group], features, pool, max_tokens, keep_logits)
        self._decode([s for group in sequences for s in group], features, pool, max_tokens)
        flat = iter(completions)
        results = []
        for members in sequences:
            results.append([next(flat) for _ in members])
            for sequence, completion in zip(members, results[-1], strict=True):
                completion.token_ids = sequence.produced
        return results

    def _lay_out(
        self, number: int, group: Sequence[DraftedPrompt], max_tokens: int, slots: itertools.count[int]
    ) -> list[_Sequence]:
        """Give every position a slot; positions that the group has in common get one slot for all."""
        shared = _common_beginning(group)
        common = list(itertools.islice(slots, shared))
        members = []
        for index, drafted in enumerate(group):
            length = len(drafted.prompt.token_ids)
            room = length + max(max_tokens, len(drafted.draft))
            if room > self._model.spec.max_model_len:
                raise PromptTooLongError(
                    f"a prompt of {length:,} tokens with an answer of {room - length:,} is longer than the model's context "
                    f"of {self._model.spec.max_model_len:,}. Use smaller pictures or shorter text.",
                    param="prompt",
                )
            name = f"{number}/{index}"
            request = Request(name, list(drafted.prompt.token_ids), SamplingParams(temperature=0.0), 0.0)
            request.block_table = common + list(itertools.islice(slots, room - shared))
            positions, delta = self._model.rope_positions(drafted.prompt)
            state = PromptState.create(
                drafted.prompt, positions, delta, bidirectional=self._model.spec.atomic_image_spans
            )
            members.append(_Sequence(request, state, drafted, shared))
        return members

    def _verify(
        self,
        sequences: Sequence[_Sequence],
        features: dict[bytes, torch.Tensor],
        pool: KVCache,
        max_tokens: int,
        keep_logits: bool,
    ) -> list[Completion]:
        """One pass over all prompts and drafts. What a group shares is a row of its own, before those that need it:
        within a layer all keys and values are written before any row attends."""
        rows: list[tuple[_Sequence, int, int]] = []
        wanted: list[range] = []
        seen: set[str] = set()
        at = 0
        for sequence in sequences:
            group = sequence.request.request_id.split("/")[0]
            if sequence.shared and group not in seen:
                seen.add(group)
                rows.append((sequence, 0, sequence.shared))
                at += sequence.shared
            sequence.request.output_token_ids = list(sequence.drafted.draft[:-1])
            end = sequence.prompt_length + len(sequence.drafted.draft) - 1
            rows.append((sequence, sequence.shared, end))
            at += end - sequence.shared
            wanted.append(range(at - len(sequence.drafted.draft), at))
        hidden = self._forward(rows, features, pool)
        logits = self._model.compute_logits(hidden[torch.tensor([i for part in wanted for i in part])])
        completions = []
        for sequence, part in zip(sequences, logits.split([len(part) for part in wanted]), strict=True):
            top1 = part.argmax(-1).tolist()
            sequence.request.output_token_ids = []
            for token, drafted in zip(top1, sequence.drafted.draft, strict=True):
                self._append(sequence, token, max_tokens)
                if sequence.finished or token != drafted:
                    break
            completions.append(Completion([], top1, part.clone() if keep_logits else None))
        return completions

    def _decode(
        self, sequences: Sequence[_Sequence], features: dict[bytes, torch.Tensor], pool: KVCache, max_tokens: int
    ) -> None:
        """Go on step by step where the model disagreed with the draft."""
        while running := [sequence for sequence in sequences if not sequence.finished]:
            rows = []
            for sequence in running:
                last = sequence.prompt_length + len(sequence.produced) - 1
                rows.append((sequence, last, last + 1))
            tokens = self._model.compute_logits(self._forward(rows, features, pool)).argmax(-1).tolist()
            for sequence, token in zip(running, tokens, strict=True):
                self._append(sequence, token, max_tokens)

    def _append(self, sequence: _Sequence, token: int, max_tokens: int) -> None:
        if token in self._model.spec.eos_token_ids:
            sequence.finished = True
            return
        sequence.produced.append(token)
        sequence.request.output_token_ids.append(token)
        sequence.finished = len(sequence.produced) >= max_tokens

    def _forward(
        self, rows: Sequence[tuple[_Sequence, int, int]], features: dict[bytes, torch.Tensor], pool: KVCache
    ) -> torch.Tensor:
        requests = {sequence.request.request_id: sequence.request for sequence, _, _ in rows}
        step = build_step(
            [ScheduledRow(sequence.request.request_id, start, end - start, 0) for sequence, start, end in rows],
            requests,
            {sequence.request.group_id: sequence.state for sequence, _, _ in rows},
            features.__getitem__,
            BlockTables(),
            block_size=1,
            position_rows=int(rows[0][0].state.positions.shape[0]),
            device=self._model.device,
        )
        return self._model.forward(step, pool)

    def _encode(self, groups: Sequence[Sequence[DraftedPrompt]]) -> dict[bytes, torch.Tensor]:
        images = {i.content_hash: i for group in groups for drafted in group for i in drafted.prompt.images}
        pending = list(images.values())
        features: dict[bytes, torch.Tensor] = {}
        for batch in batch_images(pending):
            encoded = self._model.encode_images([pending[i] for i in batch])
            features |= {pending[i].content_hash: part for i, part in zip(batch, encoded, strict=True)}
        return features

    def _pool_of(self, slots: int) -> KVCache:
        if self._pool is None or self._pool.num_blocks < slots:
            model = self._model
            self._pool = None  # the old one goes before the new one comes
            self._pool = allocate_kv_cache(
                model.spec, num_blocks=slots, block_size=1, dtype=self._kv_format, device=model.device
            )
        return self._pool


def _common_beginning(group: Sequence[DraftedPrompt]) -> int:
    """Positions that all prompts of a group have in common; 0 if there is one prompt, or if it would cut an image."""
    prompts = [drafted.prompt for drafted in group]
    if len(prompts) < 2 or any(prompt.spans != prompts[0].spans for prompt in prompts):
        return 0
    if any([i.content_hash for i in p.images] != [i.content_hash for i in prompts[0].images] for p in prompts):
        return 0
    columns = zip(*(prompt.token_ids for prompt in prompts), strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    # The last prompt token is computed per row: its output is the first that is asked for.
    shared = min(same, min(len(prompt.token_ids) for prompt in prompts) - 1)
    spans = prompts[0].spans
    return shared if not spans or shared >= spans[-1].end else 0
