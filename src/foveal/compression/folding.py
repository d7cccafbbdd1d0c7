"""Fold a per-channel scale into the module before and the linears after it. The block's function does not change."""

from __future__ import annotations

from collections.abc import Callable

import torch

from foveal.compression.mappings import Mapping

__all__ = ["fold_scale"]


def fold_scale(
    block: torch.nn.Module,
    mapping: Mapping,
    scale: torch.Tensor,
    *,
    rounded: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
) -> list[str]:
    """Divide what `mapping.source` puts out by `scale` [source channels], multiply the consumers' inputs by it, in place.

    `rounded` is applied to what the source then holds, as the checkpoint will store it. Returns the names of the
    changed parameters, relative to the block.
    """
    source = block.get_submodule(mapping.source)
    changed = []
    if isinstance(source, torch.nn.Linear):
        rows = slice(mapping.first_row, mapping.first_row + len(scale))
        source.weight[rows] = source.weight[rows] / scale[:, None].to(source.weight.dtype)
        changed.append(f"{mapping.source}.weight")
    else:
        rows = slice(None)
        weight = (source.weight + mapping.offset) / scale.to(source.weight.dtype) - mapping.offset
        source.weight.copy_(rounded(weight))
        changed.append(f"{mapping.source}.weight")
    if getattr(source, "bias", None) is not None:
        source.bias[rows] = rounded(source.bias[rows] / scale.to(source.bias.dtype))
        changed.append(f"{mapping.source}.bias")
    for name in mapping.consumers:
        consumer = block.get_submodule(name)
        consumer.weight.mul_(scale[mapping.channels].to(consumer.weight.dtype))
        changed.append(f"{name}.weight")
    return changed
