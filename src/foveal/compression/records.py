"""What compression did to each matrix, and all that a writer of checkpoints needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from foveal.compression.components import Component
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["BlockResult", "CompressionResult", "LinearRecord"]


@dataclass(frozen=True, slots=True)
class LinearRecord:
    """One linear, convolution or table. Either `kept_reason` is set or `method` and `scheme_name` are.

    `loss` and `rtn_loss` are mean squared errors of the output per element, on calibration samples held out, with the
    modality weights of the objective; None where nothing was measured. `method` is what was taken in the end: where GPTQ
    or AWQ lost against rounding, it is rtn and `note` says so.
    """

    name: str
    component: Component
    method: str | None = None
    scheme_name: str | None = None
    kept_reason: str | None = None
    loss: float | None = None
    rtn_loss: float | None = None
    sqnr_db: float | None = None
    """Of the weight as it was rounded (scales folded in)."""
    bytes_before: int = 0
    bytes_after: int = 0
    note: str | None = None

    @property
    def quantised(self) -> bool:
        return self.scheme_name is not None


@dataclass
class BlockResult:
    """Results by module name; `replaced` by tensor name: what folded scales changed and is not quantised."""

    weights: dict[str, QuantisedWeight] = field(default_factory=dict)
    schemes: dict[str, LinearScheme] = field(default_factory=dict)
    static_inputs: dict[str, StaticInput] = field(default_factory=dict)
    replaced: dict[str, torch.Tensor] = field(default_factory=dict)
    records: list[LinearRecord] = field(default_factory=list)

    def extend(self, other: BlockResult) -> None:
        self.weights |= other.weights
        self.schemes |= other.schemes
        self.static_inputs |= other.static_inputs
        self.replaced |= other.replaced
        self.records += other.records


@dataclass(frozen=True)
class CompressionResult:
    """The arguments of `write_checkpoint`, and what passports record."""

    weights: dict[str, QuantisedWeight]
    schemes: dict[str, LinearScheme]
    static_inputs: dict[str, StaticInput]
    replaced: dict[str, torch.Tensor]
    linears: dict[str, LinearRecord]
    image_weight: float
    """Weight of an image token beside a text token in the objective."""
    image_weight_losses: dict[float, float]
    """Candidate -> KL divergence of the answers in the search; empty where the weight was given."""
    warnings: tuple[str, ...] = ()

    @property
    def num_quantised(self) -> int:
        return len(self.weights)
