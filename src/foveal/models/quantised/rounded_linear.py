"""A linear that rounds its input, and how the loaded model gets them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from foveal.core.errors import ModelLoadError
from foveal.models.quantised.input_rounding import InputRounding

__all__ = ["RoundedInputLinear", "round_inputs"]


class RoundedInputLinear(torch.nn.Linear):
    """torch.nn.Linear whose input is rounded first. Shares the parameters of the linear it stands for."""

    def __init__(self, linear: torch.nn.Linear, rounding: InputRounding) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.input_rounding = rounding

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """[..., in] -> [..., out]"""
        return F.linear(self.input_rounding(input), self.weight, self.bias)


def round_inputs(model: PreTrainedModel, roundings: Mapping[str, InputRounding]) -> None:
    """Replace the named linears of `model` in place.

    Raises ModelLoadError for a module that is no plain linear: its owner may read the weight without calling it.
    """
    for name, rounding in roundings.items():
        module = model.get_submodule(name)
        if type(module) is not torch.nn.Linear:
            raise ModelLoadError(
                f"{name} is a {type(module).__name__}, whose input cannot be rounded. Quantise its weight only."
            )
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, RoundedInputLinear(module, rounding.to(module.weight.device)))
