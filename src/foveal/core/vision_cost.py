"""What the images of a request cost, known before any pixel is decoded (mission row S6)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_VISION", "VisionCost"]


@dataclass(frozen=True, slots=True)
class VisionCost:
    """Costs add up: `a + b` is the cost of both images."""

    num_tokens: int
    """Vision tokens in the prompt."""
    encode_ms: float
    """Time of the vision encoder, milliseconds."""
    kv_bytes: int
    """KV cache those tokens take."""

    def __add__(self, other: VisionCost) -> VisionCost:
        return VisionCost(
            self.num_tokens + other.num_tokens, self.encode_ms + other.encode_ms, self.kv_bytes + other.kv_bytes
        )


NO_VISION = VisionCost(0, 0.0, 0)
