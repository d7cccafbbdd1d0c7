"""Log-probabilities of sampled tokens, from the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.engine.execution.sampling.vocabulary_ops import count_above, kept, largest_values
from foveal.engine.outputs import TokenLogprob

__all__ = ["token_logprobs"]


def token_logprobs(
    logits: torch.Tensor, token_ids: Sequence[Sequence[int]], num_top: Sequence[int]
) -> list[list[TokenLogprob]]:
    """One TokenLogprob per sampled token of each row of raw `logits`, float32 [rows, vocab].

    They are taken from log_softmax(logits) *before* temperature, penalties, filters and guides (vLLM's default,
    `raw_logprobs`): they tell what the model believes, and do not change with how the request samples. So a token that
    a guide forced may have any rank, and top-k=1 does not report 0.0. `num_top[i]` alternatives for row i, most likely
    first, lower ids first among equals; rank 1 is the most likely token.
    """
    logprobs = logits.log_softmax(dim=1)
    result: list[list[TokenLogprob]] = []
    for row, ids, k in zip(logprobs, token_ids, num_top, strict=True):
        top = _top(row, k)
        entries = []
        for token_id in ids:
            chosen = float(row[token_id])
            entries.append(TokenLogprob(token_id, chosen, count_above(row, chosen) + 1, top))
        result.append(entries)
    return result


def _top(logprobs: torch.Tensor, k: int) -> tuple[tuple[int, float], ...]:
    """The k largest of logprobs [vocab]."""
    if k == 0:
        return ()
    row = logprobs.unsqueeze(0)
    _, ids, values = kept(row, largest_values(row, min(k, len(logprobs)))[:, -1])
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k])
