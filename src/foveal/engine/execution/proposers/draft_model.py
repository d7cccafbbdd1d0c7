"""A small language model guesses for the large one.

It has no vision tower: where the prompt has an image, it reads what the target's tower and projector made of it. Its
tokens are drawn with the random numbers that the target will use, so that both draw the same token as often as their
distributions allow (see `execution/verification.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from foveal.engine.execution.kv_pool import allocate_kv_cache
from foveal.engine.execution.proposers.base import DraftJob
from foveal.engine.execution.proposers.draft_pool import DraftPool, DraftSequence
from foveal.engine.execution.proposers.draft_vocabulary import DraftVocabulary
from foveal.engine.execution.sampler import Sampler
from foveal.kernels.attention_batch import AttentionBatch
from foveal.models.base import LanguageModel, ModelStep

__all__ = ["DraftModelProposer"]

BLOCK_SIZE = 16
CATCH_UP_TOKENS = 512
"""Most tokens of one request that the draft reads in a step; behind a longer prompt it proposes only some steps later."""


@dataclass(slots=True)
class _Reader:
    """A job while it is being worked on."""

    job: DraftJob
    sequence: DraftSequence
    pending: list[int]
    """Tokens to feed from position sequence.num_cached on."""
    drafted: list[int] = field(default_factory=list)
    is_behind: bool = False
    """More of the prompt is left to read than one step does."""


class DraftModelProposer:
    """Runs the draft on all jobs at once: one forward to catch up, one for each further token."""

    name = "draft"
    is_free = False
    most_tokens: int | None = None

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: DraftVocabulary,
        sampler: Sampler,
        feature: Callable[[bytes], torch.Tensor | None],
        *,
        pool_tokens: int,
    ) -> None:
        """`sampler` is the target's; `feature(content_hash)` the target's [num_tokens, feature_width] of an image."""
        self._model = model
        self._vocabulary = vocabulary
        self._sampler = sampler
        self._feature = feature
        num_blocks = -(-pool_tokens // BLOCK_SIZE)
        self._pool = DraftPool(num_blocks, BLOCK_SIZE)
        self._kv_cache = allocate_kv_cache(
            model.spec,
            num_blocks=num_blocks,
            block_size=BLOCK_SIZE,
            dtype=getattr(model, "kv_dtype", model.dtype),
            device=model.device,
        )

    @property
    def num_held(self) -> int:
        return len(self._pool)

    def forget(self, request_id: str) -> None:
        self._pool.release(request_id)

    @torch.inference_mode()
    def propose(self, jobs: Sequence[DraftJob]) -> list[list[int]]:
        """See Proposer."""
        busy = {job.request.request_id for job in jobs}
        readers = [self._reader(job, busy) for job in jobs]
        active = [reader for reader in readers if reader is not None]
        while active:
            hidden = self._forward(active)
            active = [reader for reader in active if not reader.is_behind]
            if not active:
                break
            self._draw(active, hidden)
            active = [reader for reader in active if len(reader.drafted) < reader.job.limit]
        return [[] if reader is None else reader.drafted for reader in readers]

    def _reader(self, job: DraftJob, busy: set[str]) -> _Reader | None:
        """None where the draft cannot help: no room in its pool or its context, or the image's features are gone."""
        request = job.request
        sequence = self._pool.use(request.request_id)
        sequence.rewind(
            request.num_tokens - 1
        )  # the last token is computed again where the last proposal came to nothing
        committed = request.token_slice(sequence.num_verified, request.num_tokens)
        first = sequence.num_verified
        start = sequence.keep([*committed, *job.prefix], len(committed))
        pending = [*committed, *job.prefix][start - first :]
        is_behind = len(pending) > CATCH_UP_TOKENS
        if is_behind:
            del pending[CATCH_UP_TOKENS:]
        needed = start + len(pending) + (0 if is_behind else job.limit - 1)
        if needed > self._model.spec.max_model_len or not self._pool.reserve(sequence, needed, busy):
            return None
        if not self._has_features(job, start, start + len(pending)):
            return None
        return _Reader(job, sequence, pending, is_behind=is_behind)

    def _has_features(self, job: DraftJob, start: int, end: int) -> bool:
        request = job.request
        return all(
            self._feature(request.images[span.image_index].content_hash) is not None
            for span in request.spans
            if span.offset < end and start < span.end
        )

    def _forward(self, readers: Sequence[_Reader]) -> torch.Tensor:
        """Feed what is pending; hidden states [n, hidden] behind the last token of each reader that is not behind."""
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        mask: list[bool] = []
        pieces: list[torch.Tensor] = []
        q_starts, kv_lens = [0], []
        for reader in readers:
            sequence = reader.sequence
            start = sequence.num_cached
            end = start + len(reader.pending)
            token_ids += reader.pending
            positions += range(start, end)
            slots += [sequence.blocks[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(start, end)]
            mask += self._place_features(reader.job, start, end, pieces)
            q_starts.append(len(token_ids))
            kv_lens.append(end)
            self._note_fed(reader, start)
        device = self._model.device
        widest = max(len(reader.sequence.blocks) for reader in readers)
        tables = [reader.sequence.blocks + [0] * (widest - len(reader.sequence.blocks)) for reader in readers]
        step = ModelStep(
            token_ids=torch.tensor(token_ids, device=device),
            positions=torch.tensor(positions, device=device)[None],
            image_mask=torch.tensor(mask, device=device) if pieces else None,
            image_features=torch.cat(pieces) if pieces else None,
            attention=AttentionBatch(
                torch.tensor(slots, device=device), torch.tensor(tables, device=device), q_starts, kv_lens
            ),
        )
        hidden = self._model.forward(step, self._kv_cache)
        last = [q_starts[i + 1] - 1 for i, reader in enumerate(readers) if not reader.is_behind]
        return hidden if len(last) == len(hidden) else hidden[last]

    def _place_features(self, job: DraftJob, start: int, end: int, pieces: list[torch.Tensor]) -> list[bool]:
        """[end - start] where an image's feature replaces the token; the features are added to `pieces`."""
        mask = [False] * (end - start)
        request = job.request
        for span in request.spans:
            low, high = max(span.offset, start), min(span.end, end)
            if low < high:
                mask[low - start : high - start] = [True] * (high - low)
                feature = self._feature(request.images[span.image_index].content_hash)
                assert feature is not None, "checked before"
                first = span.feature_offset + low - span.offset
                # A deepstack target's features go on with what its later layers add; the draft reads the embedding only.
                pieces.append(feature[first : first + high - low, : self._model.spec.hidden_size].to(self._model.dtype))
        return mask

    @staticmethod
    def _note_fed(reader: _Reader, start: int) -> None:
        """The pool now holds the pending tokens too; committed ones count as verified."""
        sequence, num_committed = reader.sequence, reader.job.request.num_tokens
        if not sequence.tail:
            new = max(0, min(len(reader.pending), num_committed - start))
            sequence.num_verified += new
            sequence.tail += reader.pending[new:]
        else:
            sequence.tail += reader.pending
        reader.pending = []

    def _draw(self, readers: Sequence[_Reader], hidden: torch.Tensor) -> None:
        logits = self._vocabulary.logits(hidden)
        rows = [reader.job.row for reader in readers]
        if all(row.is_plain_greedy for row in rows):
            tokens = self._vocabulary.most_likely(logits)
        else:
            views = [r.job.row.ahead([*r.job.prefix, *r.drafted])[-1] for r in readers]
            drawn = self._sampler.sample(self._vocabulary.widen(logits), views)
            tokens = [choices[0].token_id for choices in drawn]
        for reader, token in zip(readers, tokens, strict=True):
            reader.drafted.append(token)
            reader.pending = [token]
