"""GPT-2: learned absolute positions, so it always runs on transformers' own decoder."""

from __future__ import annotations

from foveal.models.family import Family

__all__ = ["FAMILY"]


class GPT2Family(Family):
    model_type = "gpt2"


FAMILY = GPT2Family()
