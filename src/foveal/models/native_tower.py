"""The matrix products of a vision tower and its projector on native kernels."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from foveal.kernels.native.linear import NativeLinear
from foveal.models.quantised.rounded_linear import RoundedInputLinear
from foveal.models.weight_packer import WeightPacker

__all__ = ["NativeTowerLinear", "adopt_tower"]


class NativeTowerLinear(torch.nn.Module):
    """Stands where a torch.nn.Linear stood, whose weight it gives up."""

    def __init__(self, linear: torch.nn.Linear, product: NativeLinear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Owners ask a linear for its type now and then.
        self.weight = torch.nn.Parameter(torch.empty(0, dtype=linear.weight.dtype), requires_grad=False)
        self._product = product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features] of the same type."""
        rows = self._product(x.reshape(-1, self.in_features).float())
        return rows.view(*x.shape[:-1], self.out_features).to(x.dtype)


def adopt_tower(core: PreTrainedModel, decoder: torch.nn.Module, packer: WeightPacker) -> list[NativeTowerLinear]:
    """Replace the linears of `core` outside its text `decoder`: those with stored codes, all where `packer` rounds.

    A tower computes hundreds of rows per picture, so fewer than 8 bits would save no time there, and every answer about
    the picture depends on it: what is rounded on load gets 8.
    """
    packer = packer.at_least_8_bits()
    text = set(decoder.modules())
    found = [
        (name, module)
        for name, module in core.named_modules()
        # Other classes' owners read the weight without calling them.
        if type(module) in (torch.nn.Linear, RoundedInputLinear) and module not in text and packer.rounds(module)
    ]
    adopted = []
    for name, module in found:
        assert isinstance(module, torch.nn.Linear)
        native = NativeTowerLinear(module, NativeLinear(packer.pack([module])))
        parent, _, attribute = name.rpartition(".")
        setattr(core.get_submodule(parent), attribute, native)
        adopted.append(native)
    return adopted
