"""Llama 1 to 3 and what shares its architecture, such as SmolLM2."""

from __future__ import annotations

from foveal.models.family import Family

__all__ = ["FAMILY"]


class LlamaFamily(Family):
    model_type = "llama"


FAMILY = LlamaFamily()
