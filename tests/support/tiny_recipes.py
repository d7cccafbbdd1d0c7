"""Recipes for tiny models, one line each."""

from __future__ import annotations

from foveal.compression.recipe import Recipe, RecipeRule, Rule
from foveal.kernels.quantisation.scheme import parse_linear

__all__ = ["BODY", "EVERY_KIND", "tiny_recipe", "tiny_rule"]

BODY = ("vision", "projector", "attention", "ffn")


def tiny_rule(
    method: str, scheme: str | None = None, components=BODY, reason="a test wants it", **options
) -> RecipeRule:
    return RecipeRule(Rule(method, scheme and parse_linear(scheme), reason, options), components)


def tiny_recipe(*rules: RecipeRule, image_weight: float | str = 1.0) -> Recipe:
    return Recipe("test", rules, modality_weight=image_weight, tied_embedding="embedding")


EVERY_KIND = tiny_recipe(
    tiny_rule("awq", "int4-g32-asym", ("vision",), grid=3),
    tiny_rule("gptq", "int4-g32", ("attention", "ffn")),
    tiny_rule("nf4", "nf4-g32-dq", ("embedding",)),
    image_weight="auto",
)
"""Folded scales, compensated codes, nested scales and a searched image weight in one recipe."""
