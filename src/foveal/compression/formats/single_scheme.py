"""Layouts for linears only, whose configuration has room for one scheme."""

from __future__ import annotations

import torch

from foveal.compression.formats.base import FormatRequest, not_expressible
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight

__all__ = ["refuse_mixed", "refuse_undivided", "refuse_wide_scales"]


def refuse_mixed(format_name: str, request: FormatRequest) -> None:
    """Raise ConfigurationError unless every module has the same scheme."""
    by_name: dict[str, str] = {}
    for module, scheme in sorted(request.schemes.items()):
        by_name.setdefault(scheme.name, module)
    if len(by_name) > 1:
        found = ", ".join(f"{scheme} ({module})" for scheme, module in by_name.items())
        raise ConfigurationError(
            f"the recipe mixes {found}; format {format_name} holds one scheme per checkpoint. Choose one bit width and a "
            "group size that divides every input (64 or 32), or use --format compressed-tensors."
        )


def refuse_undivided(format_name: str, request: FormatRequest, *, in_multiple: int = 1, out_multiple: int = 1) -> None:
    """Raise ConfigurationError for a weight whose packed side is no multiple of what a 32-bit word holds."""
    for module, (out_features, in_features) in sorted(request.shapes.items()):
        if in_features % in_multiple or out_features % out_multiple:
            raise ConfigurationError(
                f"{module} is [{out_features}, {in_features}]; format {format_name} packs whole words, so they must be "
                f"multiples of {out_multiple} and {in_multiple}. Keep it, or use --format compressed-tensors."
            )


def refuse_wide_scales(format_name: str, module: str, weight: QuantisedWeight) -> None:
    """Raise ConfigurationError for scales that are not float16 values: what is measured would not be what is stored."""
    if not torch.equal(weight.scale.half().float(), weight.scale):
        remedy = "Quantise with float16 scales, or use --format compressed-tensors."
        raise not_expressible(format_name, module, "stored with other scales", "float16 scales", remedy)
