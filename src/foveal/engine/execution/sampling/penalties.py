"""Repetition, presence and frequency penalties, and the ban on ending too early. They edit logits in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from foveal.engine.execution.sampling.row import SamplingRow

__all__ = ["apply_min_tokens", "apply_penalties"]


def apply_penalties(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> None:
    """Penalise tokens of each row's history in `logits`, float32 [len(rows), vocab], in place.

    One gather and one scatter over the distinct tokens of all rows; the vocabulary is never walked. Repetition
    (Keskar et al. 2019, CTRL, sec. 4.1) covers prompt and output; presence and frequency (OpenAI) the output only.
    Ids beyond the vocabulary (image placeholders without an embedding) are passed over.
    """
    indices = [i for i, row in enumerate(rows) if row.has_penalties]
    if not indices:
        return
    histories = [rows[i].history() for i in indices]
    lengths = [len(history.ids) for history in histories]
    ids = np.concatenate([history.ids for history in histories])
    counts = np.concatenate([history.output_counts for history in histories])
    params = [rows[i].params for i in indices]
    repetition = np.repeat([p.repetition_penalty for p in params], lengths)
    frequency = np.repeat([p.frequency_penalty for p in params], lengths)
    presence = np.repeat([p.presence_penalty for p in params], lengths)
    known = ids < logits.shape[1]
    flat = torch.from_numpy((ids + np.repeat(indices, lengths) * logits.shape[1])[known]).to(logits.device)
    values = logits.view(-1)[flat].double().cpu().numpy()
    values = np.where(values < 0, values * repetition[known], values / repetition[known])
    values -= (counts * frequency + (counts > 0) * presence)[known]
    logits.view(-1)[flat] = torch.from_numpy(values).to(logits)


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
