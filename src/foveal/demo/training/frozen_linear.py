"""A frozen linear layer whose products may run in int8 (four times fp32's rate where the CPU has VNNI).

Each row of the input is scaled by its own largest value, each output channel of the weight by its own. The gradient that
flows back through the layer is treated alike, with the transposed weight. The weight itself gets no gradient.
Source of the idea: SwitchBack (Wortsman et al., 2023).
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

__all__ = ["FrozenLinear", "Int8Weight"]


class Int8Weight:
    """A weight packed for the CPU's int8 kernel: `y = x W^T` with W [out, in]."""

    def __init__(self, weight: torch.Tensor) -> None:
        scales = (weight.abs().amax(1) / 127).clamp_min(1e-8).double()
        zero_points = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():  # the only int8 linear that torch packs for CPUs; deprecated since 2.13
            warnings.simplefilter("ignore", UserWarning)
            quantised = torch.quantize_per_channel(weight.float(), scales, zero_points, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(quantised, None)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] -> [..., out]. Rows are scaled to +-1 first, so one scale for all of them fits each."""
        reach = x.abs().amax(-1, keepdim=True).clamp_min(1e-12)
        return torch.ops.quantized.linear_dynamic(x / reach, self.packed) * reach


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, layer):  # type: ignore[no-untyped-def]
        ctx.layer = layer
        return layer.ahead.product(x) if layer.ahead else torch.nn.functional.linear(x, layer.weight)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        layer = ctx.layer
        back = layer.back.product(gradient) if layer.back else gradient @ layer.weight
        return back, None


class FrozenLinear(nn.Module):
    """`int8_forward` and `int8_backward` choose the arithmetic of each direction."""

    def __init__(self, weight: torch.Tensor, int8_forward: bool, int8_backward: bool) -> None:
        super().__init__()
        self.weight = weight.contiguous()
        self.ahead = Int8Weight(self.weight) if int8_forward else None
        self.back = Int8Weight(self.weight.T.contiguous()) if int8_backward else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _Product.apply(x, self)
        return product
