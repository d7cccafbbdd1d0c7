"""Log-likelihood of text under a loaded model, window by window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from foveal.engine.execution.kv_pool import allocate_kv_cache
from foveal.evaluation.metrics.perplexity import TextWindow
from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.models.base import LanguageModel, ModelStep
from foveal.models.image_input import PromptInput

__all__ = ["WindowScorer"]

_ROWS_AT_ONCE = 128
"""Scored positions whose logits are held at a time: 25 MB with a vocabulary of 50k."""


class WindowScorer:
    """`prefix` (a begin-of-text token, where the model expects one) stands before every window and is not scored."""

    def __init__(
        self, model: LanguageModel, prefix: Sequence[int] = (), *, kv_format: torch.dtype | None = None
    ) -> None:
        """`kv_format`: the KV cache's number format; None for the model's."""
        self._model = model
        self._kv_format = kv_format or model.dtype
        self._prefix = list(prefix)
        self._pool: KVCache | None = None

    @torch.inference_mode()
    def score(self, token_ids: Sequence[int], window: TextWindow) -> float:
        """Sum of log p over the scored tokens of the window, in nats; summed in float64."""
        ids = self._prefix + list(token_ids[window.start : window.end])
        hidden = self._forward(ids)
        first = len(self._prefix) + window.scored - window.start
        targets = torch.tensor(ids[first:], device=hidden.device)
        outputs = hidden[first - 1 : -1]
        total = 0.0
        for rows, wanted in zip(outputs.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
            chosen = F.log_softmax(self._model.compute_logits(rows), -1).gather(1, wanted[:, None])
            total += chosen.double().sum().item()
        return total

    def _forward(self, ids: list[int]) -> torch.Tensor:
        model, length = self._model, len(ids)
        if self._pool is None or self._pool.num_blocks < length:
            self._pool = allocate_kv_cache(
                model.spec, num_blocks=length, block_size=1, dtype=self._kv_format, device=model.device
            )
        slots = torch.arange(length, device=model.device)
        positions, _ = model.rope_positions(PromptInput(ids))
        step = ModelStep(
            token_ids=torch.tensor(ids, device=model.device),
            positions=positions.to(model.device),
            image_mask=None,
            image_features=None,
            attention=AttentionBatch(slots, slots[None], [0, length], [length]),
        )
        return model.forward(step, self._pool)
