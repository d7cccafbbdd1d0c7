"""Repetition, presence and frequency penalties, and the ban on ending too early. They edit logits in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.engine.execution.sampling.row import SamplingRow

__all__ = ["apply_min_tokens", "apply_penalties"]


def apply_penalties(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> None:
    """Penalise tokens of each row's history in `logits`, float32 [len(rows), vocab], in place.

    One gather and one scatter over the distinct tokens of all rows; the vocabulary is never walked. Repetition
    (Keskar et al. 2019, CTRL, sec. 4.1) covers prompt and output; presence and frequency (OpenAI) the output only.
    """
    indices = [i for i, row in enumerate(rows) if row.has_penalties]
    if not indices:
        return
    device, vocab = logits.device, logits.shape[1]
    histories = [rows[i].history() for i in indices]
    ids = [history.ids for history in histories]
    lengths = torch.tensor([len(i) for i in ids])
    if int(lengths.sum()) == 0:
        return
    offsets = torch.tensor(indices).repeat_interleave(lengths) * vocab
    flat = (torch.cat(ids) + offsets).to(device)
    counts = torch.cat([history.output_counts for history in histories]).to(device)

    def per_token(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths).to(device)

    repetition = per_token([rows[i].params.repetition_penalty for i in indices])
    frequency = per_token([rows[i].params.frequency_penalty for i in indices])
    presence = per_token([rows[i].params.presence_penalty for i in indices])
    values = logits.view(-1)[flat]
    values = torch.where(values < 0, values * repetition, values / repetition)
    values = values - counts * frequency - (counts > 0) * presence
    logits.view(-1)[flat] = values


def apply_min_tokens(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> None:
    """Forbid end and stop tokens, in place, for rows that have not reached `min_tokens`."""
    row_indices: list[int] = []
    token_ids: list[int] = []
    for i, row in enumerate(rows):
        for token_id in row.forbidden_token_ids:
            if 0 <= token_id < logits.shape[1]:
                row_indices.append(i)
                token_ids.append(token_id)
    if token_ids:
        logits[row_indices, token_ids] = float("-inf")
