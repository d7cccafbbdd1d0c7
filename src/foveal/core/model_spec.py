"""The numbers of a model that planning, scheduling and serving need; no weights, no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelSpec"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Shape of a loaded model."""

    model_type: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    feature_width: int
    """Columns of one image-feature row: hidden_size, times (1 + L) with L deepstack levels."""
    atomic_image_spans: bool = False
    """Image tokens attend to each other in both directions, so a span is never cut (Gemma 3)."""
    supports_images: bool = True

    def kv_bytes_per_token(self, bytes_per_element: int, bytes_per_scale: int = 0) -> int:
        """2 (K and V) x layers x KV heads x (head dim x element size + scale) (mission row P1)."""
        return 2 * self.num_layers * self.num_kv_heads * (self.head_dim * bytes_per_element + bytes_per_scale)
