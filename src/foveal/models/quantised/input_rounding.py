"""The rounding of a linear's input that a W8A8 layout asks for, so that accuracy is measured honestly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.activations import fake_quantise
from foveal.kernels.quantisation.scheme import ActivationScheme

__all__ = ["InputRounding", "StaticInput"]


@dataclass(frozen=True)
class StaticInput:
    """Range of one linear's input, found by calibration."""

    scale: torch.Tensor
    """float32, one element."""
    zero_point: torch.Tensor | None = None
    """int32, one element, an unsigned code; asymmetric schemes only."""


class InputRounding:
    """x -> the nearest values that the integer input of a linear can take.

    Dynamic schemes find one scale per token (the last dimension), as vLLM's kernels do. compressed-tensors' own Python
    forward differs: it takes steps of max / 127.5, and one scale for all of a two-dimensional input.
    """

    def __init__(self, scheme: ActivationScheme, static: StaticInput | None = None) -> None:
        """Raises ConfigurationError if a static scheme has no range, or one whose zero point does not fit it."""
        if scheme.dynamic != (static is None):
            raise ConfigurationError(
                f"inputs are {scheme.name}, and {'no' if static is None else 'a'} calibrated range is given. Static schemes "
                "need one, dynamic ones find it per token: calibrate, or choose the other."
            )
        if static is not None and (static.zero_point is None) != scheme.symmetric:
            raise ConfigurationError(
                f"inputs are {scheme.name}, and their range has {'no' if static.zero_point is None else 'a'} zero point. "
                "Calibrate again for this scheme."
            )
        self.scheme = scheme
        self._scale = None if static is None else static.scale.float().reshape(())
        zero_point = None if static is None else static.zero_point
        self._zero_point = None if zero_point is None else zero_point.to(torch.int32).reshape(())

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., in] of the same type."""
        return fake_quantise(x, self.scheme, self._scale, self._zero_point)

    def same_as(self, other: InputRounding) -> bool:
        """True if both give the same result for every input: linears that share an input can then share the rounding."""
        return self.scheme == other.scheme and all(
            one is two or (one is not None and two is not None and torch.equal(one, two))
            for one, two in ((self._scale, other._scale), (self._zero_point, other._zero_point))
        )

    def to(self, device: torch.device) -> InputRounding:
        """The same rounding with its range on `device`."""
        if self._scale is None:
            return self
        zero_point = None if self._zero_point is None else self._zero_point.to(device)
        return InputRounding(self.scheme, StaticInput(self._scale.to(device), zero_point))
