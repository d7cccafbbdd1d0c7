"""Guides restrict the vocabulary: apply their bitmasks to a batch of logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from foveal.engine.execution.sampling.row import SamplingRow

__all__ = ["apply_guides", "unpack_bitmask"]


def unpack_bitmask(bitmask: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """int32 [rows, ceil(vocab / 32)] on the CPU -> bool [rows, vocab]; bit i % 32 of word i // 32 is token i."""
    words = bitmask.numpy().astype("<i4", copy=False)
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=vocab_size, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_))


def apply_guides(processed: torch.Tensor, raw: torch.Tensor, rows: Sequence[SamplingRow]) -> None:
    """Set what the guides forbid to -inf in `processed`, float32 [rows, vocab], in place.

    Where `min_tokens` forbids the only tokens that a guide allows (its text is complete), the guide wins: the raw
    logits of what it allows come back.
    """
    guided = [i for i, row in enumerate(rows) if row.guide is not None]
    if not guided:
        return
    vocab = processed.shape[1]
    words = torch.zeros((len(guided), (vocab + 31) // 32), dtype=torch.int32)
    for line, i in zip(words, guided, strict=True):
        guide = rows[i].guide
        if guide is not None:
            guide.write_mask(line)
    allowed = unpack_bitmask(words, vocab).to(processed.device)
    masked = processed[guided].masked_fill_(~allowed, float("-inf"))
    stuck = masked.amax(dim=1) == float("-inf")
    if bool(stuck.any()):
        masked[stuck] = raw[guided][stuck].masked_fill_(~allowed[stuck], float("-inf"))
    processed[guided] = masked
