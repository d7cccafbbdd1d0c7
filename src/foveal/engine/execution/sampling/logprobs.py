"""Log-probabilities of sampled tokens, from the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

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
    counts = [len(ids) for ids in token_ids]
    rows = torch.arange(len(counts), device=logits.device).repeat_interleave(torch.tensor(counts, device=logits.device))
    flat_ids = torch.tensor([token_id for ids in token_ids for token_id in ids], device=logits.device)
    chosen = logprobs[rows, flat_ids]
    ranks = ((logprobs[rows] > chosen.unsqueeze(1)).sum(dim=1) + 1).tolist()
    chosen_values = chosen.tolist()
    tops = [_top(logprobs[i], k) for i, k in enumerate(num_top)]
    result: list[list[TokenLogprob]] = []
    cursor = 0
    for i, ids in enumerate(token_ids):
        result.append(
            [TokenLogprob(token, chosen_values[cursor + j], ranks[cursor + j], tops[i]) for j, token in enumerate(ids)]
        )
        cursor += len(ids)
    return result


def _top(logprobs: torch.Tensor, k: int) -> tuple[tuple[int, float], ...]:
    if k == 0:
        return ()
    values, ids = logprobs.topk(min(k, len(logprobs)))
    return tuple(sorted(zip(ids.tolist(), values.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])))
