"""How large the draft is, and which of the target's layers it starts from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DraftShape"]

_FP16_BYTES = 2


@dataclass(frozen=True)
class DraftShape:
    """`layers` of the target (0 is the first) that the draft begins with, and the FFN channels each of them keeps."""

    layers: tuple[int, ...] = (0, 7, 14, 21, 29)
    ffn_channels: int = 640

    def parameters(self, hidden: int, heads: int, kv_heads: int, head_dim: int) -> int:
        """Weights of the layers and the final norm; embedding and head are the target's."""
        attention = 2 * hidden * head_dim * (heads + kv_heads)
        ffn = 3 * hidden * self.ffn_channels
        return len(self.layers) * (attention + ffn + 2 * hidden) + hidden

    def stored_bytes(self, hidden: int, heads: int, kv_heads: int, head_dim: int) -> int:
        """fp16: 19.9 MB for five layers of the demo model with 640 channels."""
        return _FP16_BYTES * self.parameters(hidden, heads, kv_heads, head_dim)
