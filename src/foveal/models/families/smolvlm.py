"""SmolVLM: Idefics 3 with a smaller vocabulary of sizes; the same tiles and marker tokens."""

from __future__ import annotations

from foveal.models.families.idefics3 import Idefics3Family

__all__ = ["FAMILY"]


class SmolVLMFamily(Idefics3Family):
    model_type = "smolvlm"


FAMILY = SmolVLMFamily()
