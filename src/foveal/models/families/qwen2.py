"""Qwen2 and Qwen2.5, text only."""

from __future__ import annotations

from foveal.models.family import Family

__all__ = ["FAMILY"]


class Qwen2Family(Family):
    model_type = "qwen2"


FAMILY = Qwen2Family()
