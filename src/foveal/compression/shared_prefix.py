"""Many questions about one picture as one step: the picture and what stands before it are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foveal.compression.calibration_inputs import PreparedSample
from foveal.core.image_span import ImageSpan
from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.models.base import ModelStep
from foveal.models.language_model import TransformersModel

__all__ = ["SharedPrefixStep", "build_shared_step", "cache_for"]


@dataclass(frozen=True)
class SharedPrefixStep:
    """A step over several pictures' questions, and the rows of its output that predict answers."""

    step: ModelStep
    """Without image features until `place_features`."""
    answer_rows: torch.Tensor
    """[A] in the order of the samples given, each sample's positions in order."""
    num_slots: int
    feature_parts: tuple[tuple[int, int, int], ...]
    """(picture of the step, first feature row, number of rows) in the order of the step's image tokens."""

    def place_features(self, features: Sequence[torch.Tensor]) -> None:
        """One [rows, feature_width] tensor per picture of the step."""
        parts = [features[picture][first : first + count] for picture, first, count in self.feature_parts]
        if parts:
            self.step.image_features = torch.cat(parts)


@dataclass(slots=True)
class _Row:
    """One attention row: tokens [start, end) of `sample`, after `before` slots that hold what precedes them."""

    sample: PreparedSample
    start: int
    end: int
    before: torch.Tensor


def build_shared_step(model: TransformersModel, questions: Sequence[Sequence[PreparedSample]]) -> SharedPrefixStep:
    """`questions[i]` are samples about the i-th picture (or, for a text-only model, about none).

    Blocks have one token: the questions' block tables begin with the common beginning's. Source: prefix sharing as in
    vLLM's automatic prefix caching, within a single step.
    """
    rows: list[_Row] = []
    answers: list[torch.Tensor] = []
    slots_taken = 0
    for samples in questions:
        prefix = _common_prefix(samples)
        shared = torch.arange(slots_taken, slots_taken + prefix)
        if prefix:
            rows.append(_Row(samples[0], 0, prefix, shared[:0]))
        slots_taken += prefix
        for sample in samples:
            rows.append(_Row(sample, prefix, sample.num_tokens, shared))
            positions = torch.from_numpy(sample.answer_mask).nonzero()[:, 0]
            answers.append(positions - prefix + slots_taken)
            slots_taken += sample.num_tokens - prefix
    parts = tuple(part for number, samples in enumerate(questions) for part in _feature_parts(number, samples))
    return SharedPrefixStep(_step_of(model, rows, slots_taken), torch.cat(answers), slots_taken, parts)


def cache_for(model: TransformersModel, steps: Sequence[SharedPrefixStep]) -> KVCache:
    """A pool of one-token blocks for one step at a time. All layers share one layer's memory: nothing is read after its
    layer ran."""
    spec = model.spec
    shape = (1, max(step.num_slots for step in steps) + 1, spec.num_kv_heads, spec.head_dim)
    key, value = (torch.zeros(shape, dtype=model.dtype).expand(spec.num_layers, *shape[1:]) for _ in range(2))
    return KVCache(key, value, 1)


def _common_prefix(samples: Sequence[PreparedSample]) -> int:
    """Tokens that all samples begin with; it ends before the first logit that is asked for, and outside pictures."""
    shortest = min(int(sample.answer_mask.argmax()) for sample in samples)
    first = samples[0].prompt.token_ids
    length = 0
    while length < shortest and all(sample.prompt.token_ids[length] == first[length] for sample in samples):
        length += 1
    for sample in samples:
        for span in sample.prompt.spans:
            if span.offset < length < span.end:
                length = span.offset
    return length


def _step_of(model: TransformersModel, rows: Sequence[_Row], num_tokens: int) -> ModelStep:
    tokens: list[int] = []
    positions, masks, tables = [], [], []
    q_starts, kv_lens = [0], []
    spans: list[torch.Tensor | None] = []
    for row in rows:
        own = torch.arange(q_starts[-1], q_starts[-1] + row.end - row.start)
        tokens += row.sample.prompt.token_ids[row.start : row.end]
        positions.append(model.rope_positions(row.sample.prompt)[0][:, row.start : row.end])
        masks.append(torch.from_numpy(row.sample.image_mask[row.start : row.end]))
        tables.append(torch.cat([row.before, own]))
        q_starts.append(q_starts[-1] + len(own))
        kv_lens.append(row.end)
        spans.append(_span_ids(row.sample.prompt.spans, row.end))
    mask = torch.cat(masks)
    return ModelStep(
        token_ids=torch.tensor(tokens),
        positions=torch.cat(positions, 1),
        image_mask=mask if mask.any() else None,
        image_features=None,
        attention=AttentionBatch(
            slots=torch.arange(num_tokens),
            block_tables=torch.nn.utils.rnn.pad_sequence(tables, batch_first=True),
            q_starts=q_starts,
            kv_lens=kv_lens,
            span_ids=spans if model.spec.atomic_image_spans else None,
        ),
    )


def _span_ids(spans: Sequence[ImageSpan], length: int) -> torch.Tensor | None:
    if not spans:
        return None
    ids = torch.full((length,), -1)
    for number, span in enumerate(spans):
        ids[span.offset : span.end] = number
    return ids


def _feature_parts(number: int, samples: Sequence[PreparedSample]) -> list[tuple[int, int, int]]:
    prefix = _common_prefix(samples)
    inside = [span for span in samples[0].prompt.spans if span.end <= prefix]
    after = [span for sample in samples for span in sample.prompt.spans if span.offset >= prefix]
    return [(number, span.feature_offset, span.length) for span in inside + after]
