"""The tokens that a draft can propose: all, or the frequent ones, because its head is most of its work."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from foveal.engine.execution.sampling.vocabulary_ops import argmax
from foveal.models.base import LanguageModel
from foveal.models.linears import PackedLinear

__all__ = ["DraftVocabulary"]


class DraftVocabulary:
    """Turns the draft's hidden states into logits over the target's vocabulary.

    Byte-pair encoding numbers its tokens in the order of their merges, which is about that of their frequency: the first
    few thousand make up most of any text. What is left out is never proposed, and costs a rejected draft where the target
    says it.
    """

    def __init__(
        self, model: LanguageModel, target_vocab_size: int, *, size: int | None = None, always: Iterable[int] = ()
    ) -> None:
        """`size`: how many of the lowest ids to keep, None for all; `always` are kept too (end tokens)."""
        self._model = model
        self._target_vocab_size = target_vocab_size
        self._ids: torch.Tensor | None = None
        self._head: PackedLinear | None = None
        full = model.spec.vocab_size
        if size is not None and size < full:
            kept = sorted({*range(size), *(token for token in always if 0 <= token < full)})
            ids = torch.tensor(kept, device=model.device)
            self._head = model.cut_head(ids)
            self._ids = None if self._head is None else ids

    @property
    def size(self) -> int:
        return self._model.spec.vocab_size if self._ids is None else len(self._ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, hidden] -> float32 [n, size]."""
        return self._model.compute_logits(hidden) if self._head is None else self._head(hidden).float()

    def most_likely(self, logits: torch.Tensor) -> list[int]:
        """Token id of the largest of `logits` [n, size] per row."""
        found = argmax(logits)
        return found if self._ids is None else self._ids[found].tolist()

    def widen(self, logits: torch.Tensor) -> torch.Tensor:
        """[n, size] -> [n, target's vocabulary], -inf for tokens that the draft does not know."""
        if self._ids is None and logits.shape[1] == self._target_vocab_size:
            return logits
        wide = logits.new_full((len(logits), self._target_vocab_size), float("-inf"))
        if self._ids is None:
            wide[:, : logits.shape[1]] = logits
        else:
            wide.index_copy_(1, self._ids, logits)
        return wide
