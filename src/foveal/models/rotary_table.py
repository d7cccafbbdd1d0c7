"""cos and sin of positions, looked up where the stack's rotary module is a plain function of the position."""

from __future__ import annotations

import torch

__all__ = ["RotaryTable"]

# Types whose frequencies do not depend on the length of the text.
_FIXED_TYPES = {"default", "linear", "llama3", "yarn"}
_FIRST_LENGTH = 1024


class RotaryTable:
    """Asks the module once for a range of positions: a few torch operations per step are a tenth of a small model's step."""

    def __init__(self, rotary: torch.nn.Module, hidden_size: int) -> None:
        self._rotary = rotary
        self._like = torch.zeros(1, 1, hidden_size)
        self._is_fixed = getattr(rotary, "rope_type", None) in _FIXED_TYPES
        self._cos, self._sin = self._compute(torch.arange(0)[None])

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions int64 [P, T], P = 3 with M-RoPE -> cos and sin, float32 [T, head_dim]."""
        if positions.shape[0] != 1 or not self._is_fixed:
            return self._compute(positions)
        needed = int(positions.max()) + 1 if positions.numel() else 0
        if needed > len(self._cos):
            length = max(_FIRST_LENGTH, 2 * len(self._cos), needed)
            self._cos, self._sin = self._compute(torch.arange(length)[None])
        return self._cos.index_select(0, positions[0]), self._sin.index_select(0, positions[0])

    def _compute(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self._rotary(self._like, positions if positions.shape[0] == 1 else positions[:, None])
        return cos[0].contiguous(), sin[0].contiguous()
