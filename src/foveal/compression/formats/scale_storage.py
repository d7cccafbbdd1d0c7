"""The narrowest type that holds every scale exactly."""

from __future__ import annotations

import torch

__all__ = ["stored_scale"]


def stored_scale(scale: torch.Tensor) -> torch.Tensor:
    """float16 or bfloat16 if no value changes by it (quantisers choose scales so), otherwise float32."""
    for dtype in (torch.float16, torch.bfloat16):
        narrow = scale.to(dtype)
        if torch.equal(narrow.float(), scale.float()):
            return narrow
    return scale.float()
