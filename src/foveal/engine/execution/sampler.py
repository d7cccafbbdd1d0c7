"""Logits in, tokens out: penalties, guides, temperature, filters, draw, log-probabilities.

Two promises. Greedy is the exact argmax, the lowest id among equals. And what a row yields is a function of that row
alone: each reduction stays within a row and random numbers are keyed (`sampling/random_stream.py`), so the same seed
gives the same token alone or in any batch, before or after a preemption.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.engine.execution.sampling.bitmask import apply_guides
from foveal.engine.execution.sampling.draw import GumbelDraw
from foveal.engine.execution.sampling.filters import has_filters, thresholds
from foveal.engine.execution.sampling.logprobs import token_logprobs
from foveal.engine.execution.sampling.penalties import apply_min_tokens, apply_penalties
from foveal.engine.execution.sampling.random_stream import DrawKey, draw_key, stream_seed
from foveal.engine.execution.sampling.row import SampledToken, SamplingRow
from foveal.engine.execution.sampling.vocabulary_ops import argmax, select_rows

__all__ = ["SampledToken", "Sampler", "SamplingRow", "stream_seed"]


class Sampler:
    """Stateless between steps; holds only a table for a vocabulary of `vocab_size` logits. They may be on any device."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._gumbel = GumbelDraw(vocab_size)

    @torch.inference_mode()
    def sample(self, logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[list[SampledToken]]:
        """Draw `len(row.choices)` tokens from each row of `logits`, [len(rows), vocab]; any float dtype, not modified.

        Guides are read, not advanced: the caller advances the guide of each choice with the token it keeps.
        Raises ValueError if the shape does not fit.
        """
        if logits.shape != (len(rows), self.vocab_size):
            raise ValueError(f"logits have shape {tuple(logits.shape)}, not ({len(rows)}, {self.vocab_size})")
        if not rows:
            return []
        logits = logits.float().contiguous()
        if all(row.is_plain_greedy for row in rows):
            ids = [[token] * len(row.choices) for row, token in zip(rows, argmax(logits), strict=True)]
            return [[SampledToken(token) for token in tokens] for tokens in ids]
        ids = self._draw(self._processed(logits, rows), rows)
        return self._with_logprobs(logits, rows, ids)

    @torch.inference_mode()
    def probabilities(self, logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
        """The distribution that `sample` draws from: float32 [len(rows), vocab], each row sums to 1."""
        processed = self._processed(logits.float().contiguous(), rows)
        result = torch.zeros_like(processed)
        for i, row in enumerate(rows):
            if row.greedy:
                result[i, argmax(processed[i : i + 1])] = 1.0
                continue
            scaled = processed[i : i + 1] / row.params.temperature
            if has_filters(row.params):
                limit = torch.tensor(thresholds(scaled, [row.params]), dtype=torch.float32).item()
                scaled = torch.where(scaled >= limit, scaled, float("-inf"))
            result[i] = scaled.softmax(dim=1)[0]
        return result

    def _processed(self, logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
        """Logits after penalties, min_tokens and guides; a copy where any of them applies."""
        if not any(row.changes_logits for row in rows):
            return logits
        processed = logits.clone()
        apply_penalties(processed, rows)
        apply_min_tokens(processed, rows)
        apply_guides(processed, logits, rows)
        return processed

    def _draw(self, processed: torch.Tensor, rows: Sequence[SamplingRow]) -> list[list[int]]:
        greedy = [i for i, row in enumerate(rows) if row.greedy]
        random = [i for i, row in enumerate(rows) if not row.greedy]
        result: list[list[int]] = [[] for _ in rows]
        if greedy:
            for i, token in zip(greedy, argmax(select_rows(processed, greedy)), strict=True):
                result[i] = [token] * len(rows[i].choices)
        if random:
            for i, tokens in zip(random, self._draw_random(select_rows(processed, random), rows, random), strict=True):
                result[i] = tokens
        return result

    def _draw_random(
        self, logits: torch.Tensor, rows: Sequence[SamplingRow], indices: Sequence[int]
    ) -> list[list[int]]:
        """Tokens of rows[indices] from `logits` [len(indices), vocab]: row by row on a CPU, and as a matrix what is left."""
        params = [rows[i].params for i in indices]
        keys = [_keys(rows[i]) for i in indices]
        found: list[list[int] | None] = [None] * len(indices)
        if logits.device.type == "cpu":
            found = self._gumbel.draw_rows(logits, params, keys)
        left = [k for k, tokens in enumerate(found) if tokens is None]
        if left:
            some = [params[k] for k in left]
            temperature = torch.tensor([p.temperature for p in some], device=logits.device)
            scaled = select_rows(logits, left) / temperature.unsqueeze(1)
            drawn = self._gumbel.draw(scaled, thresholds(scaled, some), [keys[k] for k in left])
            for k, tokens in zip(left, drawn, strict=True):
                found[k] = tokens
        return [tokens for tokens in found if tokens is not None]

    def _with_logprobs(
        self, logits: torch.Tensor, rows: Sequence[SamplingRow], ids: list[list[int]]
    ) -> list[list[SampledToken]]:
        result = [[SampledToken(token) for token in tokens] for tokens in ids]
        wanted = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
        if wanted:
            tops = [rows[i].params.logprobs or 0 for i in wanted]
            described = token_logprobs(select_rows(logits, wanted), [ids[i] for i in wanted], tops)
            for i, entries in zip(wanted, described, strict=True):
                result[i] = [SampledToken(entry.token_id, entry) for entry in entries]
        return result


def _keys(row: SamplingRow) -> list[DrawKey]:
    return [draw_key(row.seed, choice, len(row.output_token_ids)) for choice in row.choices]
