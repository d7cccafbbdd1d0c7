"""Which number format a model runs in."""

from __future__ import annotations

from typing import Literal

import torch

from foveal.core.errors import ConfigurationError

__all__ = ["DTypeName", "has_fast_bfloat16", "resolve_dtype"]

DTypeName = Literal["auto", "float32", "bfloat16"]


def has_fast_bfloat16(device: torch.device) -> bool:
    """True if the device multiplies bfloat16 in hardware: any GPU we target; on a CPU AVX512-BF16 or AMX.

    Without it a CPU emulates bfloat16 and is slower than in float32.
    """
    if device.type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolve_dtype(requested: DTypeName, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """The format to run in. "auto": the checkpoint's own, but float32 for float16 checkpoints and slow bfloat16.

    float16 is never used: its range overflows in models trained in bfloat16, and CPUs are slow at it.
    Raises ConfigurationError for other names.
    """
    if requested == "float32":
        return torch.float32
    if requested == "bfloat16":
        return torch.bfloat16
    if requested != "auto":
        raise ConfigurationError(f"dtype is {requested!r}; it must be auto, float32 or bfloat16")
    return torch.bfloat16 if stored == torch.bfloat16 and has_fast_bfloat16(device) else torch.float32
