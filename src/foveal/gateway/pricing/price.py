"""What a request is expected to cost a backend. The unit of quotas, fairness and load."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.vision_cost import NO_VISION, VisionCost

__all__ = ["Price"]


@dataclass(frozen=True, slots=True)
class Price:
    prompt_tokens: int
    """Text and vision tokens, estimated."""
    output_tokens: int
    """Expected output tokens over all choices."""
    cost_ms: float
    """Expected time of an otherwise idle backend: encoder, prefill and decode, milliseconds. Never 0."""
    vision: VisionCost = NO_VISION
