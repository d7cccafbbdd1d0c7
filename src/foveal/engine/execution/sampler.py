"""Logits in, tokens out: penalties, guides, temperature, filters, draw, log-probabilities.

Two promises. Greedy is the exact argmax, the lowest id among equals. And what a row yields is a function of that row
alone: each reduction stays within a row and random numbers are keyed (`sampling/random_stream.py`), so the same seed
gives the same token alone or in any batch, before or after a preemption.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.engine.execution.sampling.bitmask import apply_guides
from foveal.engine.execution.sampling.filters import has_filters, thresholds
from foveal.engine.execution.sampling.logprobs import token_logprobs
from foveal.engine.execution.sampling.ordering import argmax
from foveal.engine.execution.sampling.penalties import apply_min_tokens, apply_penalties
from foveal.engine.execution.sampling.random_stream import DrawKey, TokenNoise, draw_key, stream_seed
from foveal.engine.execution.sampling.row import SampledToken, SamplingRow

__all__ = ["SampledToken", "Sampler", "SamplingRow", "stream_seed"]


class Sampler:
    """Stateless between steps; holds only tables for a vocabulary of `vocab_size` logits on `device`."""

    def __init__(self, vocab_size: int, device: torch.device | str = "cpu") -> None:
        self.vocab_size = vocab_size
        self._noise = TokenNoise(vocab_size, device)

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
            ids = [[token] * len(row.choices) for row, token in zip(rows, argmax(logits).tolist(), strict=True)]
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
                keep = scaled >= thresholds(scaled, [row.params]).unsqueeze(1)
                scaled = torch.where(keep, scaled, float("-inf"))
            result[i] = scaled.softmax(dim=1)[0]
        return result

    def _processed(self, logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
        """Logits after penalties, min_tokens and guides; a copy where any of them applies."""
        if not any(row.has_penalties or row.forbidden_token_ids or row.guide is not None for row in rows):
            return logits
        processed = logits.clone()
        apply_penalties(processed, rows)
        apply_min_tokens(processed, rows)
        apply_guides(processed, logits, rows)
        return processed

    def _draw(self, processed: torch.Tensor, rows: Sequence[SamplingRow]) -> list[list[int]]:
        greedy = [i for i, row in enumerate(rows) if row.greedy]
        filtered = [i for i, row in enumerate(rows) if not row.greedy and has_filters(row.params)]
        result: list[list[int]] = [[] for _ in rows]
        if greedy:
            for i, token in zip(greedy, argmax(processed[greedy]).tolist(), strict=True):
                result[i] = [token] * len(rows[i].choices)
        if filtered:
            self._draw_filtered(processed, rows, filtered, result)
        for i, row in enumerate(rows):
            if not result[i]:
                scaled = processed[i] / row.params.temperature
                scores = torch.stack([scaled + self._noise.for_all(key) for key in _keys(row)])
                result[i] = argmax(scores).tolist()
        return result

    def _draw_filtered(
        self, processed: torch.Tensor, rows: Sequence[SamplingRow], indices: list[int], result: list[list[int]]
    ) -> None:
        """Draw for rows with top-k, top-p or min-p: noise only for the tokens that survive."""
        device = processed.device
        temperature = torch.tensor([rows[i].params.temperature for i in indices], device=device)
        scaled = processed[indices] / temperature.unsqueeze(1)
        keep = scaled >= thresholds(scaled, [rows[i].params for i in indices]).unsqueeze(1)
        owners: list[int] = []  # position in `indices` that each draw belongs to
        keys: list[DrawKey] = []
        for position, i in enumerate(indices):
            for key in _keys(rows[i]):
                owners.append(position)
                keys.append(key)
        if len(owners) > len(indices):  # some row has several choices: one line per draw
            scaled, keep = scaled[owners], keep[owners]
        draws, token_ids = keep.nonzero(as_tuple=True)
        scores = scaled[draws, token_ids].double() + self._noise.for_tokens(keys, draws, token_ids)
        best = torch.full((len(keys),), float("-inf"), dtype=torch.float64, device=device)
        best.scatter_reduce_(0, draws, scores, reduce="amax")
        winners = scores == best[draws]
        tokens = torch.full((len(keys),), self.vocab_size, dtype=torch.int64, device=device)
        tokens.scatter_reduce_(0, draws[winners], token_ids[winners], reduce="amin")
        # Logits with NaN keep nothing: still answer with a valid id, one broken request must not end the others.
        tokens.clamp_(max=self.vocab_size - 1)
        for position, token in zip(owners, tokens.tolist(), strict=True):
            result[indices[position]].append(token)

    def _with_logprobs(
        self, logits: torch.Tensor, rows: Sequence[SamplingRow], ids: list[list[int]]
    ) -> list[list[SampledToken]]:
        result = [[SampledToken(token) for token in tokens] for tokens in ids]
        wanted = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
        if wanted:
            tops = [rows[i].params.logprobs or 0 for i in wanted]
            described = token_logprobs(logits[wanted], [ids[i] for i in wanted], tops)
            for i, entries in zip(wanted, described, strict=True):
                result[i] = [SampledToken(entry.token_id, entry) for entry in entries]
        return result


def _keys(row: SamplingRow) -> list[DrawKey]:
    return [draw_key(row.seed, choice, len(row.output_token_ids)) for choice in row.choices]
