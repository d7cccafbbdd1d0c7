"""What the runner keeps of a prompt from admission to the end: positions, image places and pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from foveal.models.image_input import PromptInput

__all__ = ["PromptState"]


@dataclass(slots=True)
class PromptState:
    """Shared by all choices of a request."""

    prompt: PromptInput
    positions: npt.NDArray[np.int64]
    """[P, prompt length]"""
    position_delta: int
    """An output token at index i has position i + delta."""
    span_ids: torch.Tensor | None
    """[prompt length] number of the bidirectional span of each token, -1 for text; None for causal models."""

    @classmethod
    def create(cls, prompt: PromptInput, positions: torch.Tensor, delta: int, *, bidirectional: bool) -> PromptState:
        span_ids = None
        if bidirectional and prompt.spans:
            span_ids = torch.full((len(prompt.token_ids),), -1, dtype=torch.int64)
            for number, span in enumerate(prompt.spans):
                span_ids[span.offset : span.offset + span.length] = number
        return cls(prompt, positions.numpy(), delta, span_ids)

    @property
    def last_span_end(self) -> int:
        spans = self.prompt.spans
        return spans[-1].offset + spans[-1].length if spans else 0

    def write_positions(self, out: npt.NDArray[np.int64], at: int, start: int, count: int) -> None:
        """Positions of token indices [start, start + count) into columns [at, at + count) of `out` [P, T].

        Indexed by absolute position, so that a chunk or a draft never restarts M-RoPE.
        """
        length = self.positions.shape[1]
        if count == 1:  # a decoding request: without slices
            out[:, at] = self.positions[:, start] if start < length else start + self.position_delta
            return
        end = start + count
        split = min(max(length, start), end)
        if split > start:
            out[:, at : at + split - start] = self.positions[:, start:split]
        if end > split:
            out[:, at + split - start : at + count] = np.arange(split, end) + self.position_delta
