"""The price of images in the unit that hurts (shared by engine and, later, the gateway)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VisionCost"]


@dataclass(frozen=True, slots=True)
class VisionCost:
    """What one image costs before anything is decoded."""

    tokens: int
    """Placeholder tokens in the language model's context."""
    encode_ms: float
    """Expected encoder time on this machine; 0 when not calibrated."""
    kv_bytes: int
    """KV cache bytes that its tokens occupy."""
