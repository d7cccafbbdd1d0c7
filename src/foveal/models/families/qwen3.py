"""Qwen3 dense models, text only."""

from __future__ import annotations

from foveal.models.family import Family

__all__ = ["FAMILY"]


class Qwen3Family(Family):
    model_type = "qwen3"


FAMILY = Qwen3Family()
