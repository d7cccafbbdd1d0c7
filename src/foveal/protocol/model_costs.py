"""What a backend says of its model's costs in /v1/models, so that a gateway can price a request before anybody decodes it."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["LatencyCoefficients", "ModelCosts", "VisionFacts"]


class VisionFacts(msgspec.Struct, omit_defaults=True):
    """How a picture's size becomes tokens."""

    family: str
    """Name of the rule: the checkpoint's model_type."""
    options: dict[str, Any] = {}
    """Numbers of this checkpoint: patch size, pixel limits, tiles."""
    pixel_budgets: dict[str, int | None] = {}
    """Detail -> most pixels a picture keeps; null keeps them all. Empty: detail changes nothing."""
    single_view_details: list[str] = []
    """Details at which a picture is one view without tiles."""


class LatencyCoefficients(msgspec.Struct):
    """Of the calibrated latency model, seconds per unit of each of its terms."""

    step_s: list[float]
    vision_s: list[float] | None = None


class ModelCosts(msgspec.Struct, omit_defaults=True):
    """Everything is optional: what a backend does not know is learnt from its answers."""

    kv_bytes_per_token: int | None = None
    vision: VisionFacts | None = None
    latency: LatencyCoefficients | None = None
