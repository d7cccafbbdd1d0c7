"""What a checkpoint format must say about itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["CheckpointFormat", "FormatRequest", "StoredItem", "not_expressible"]


@dataclass(frozen=True)
class FormatRequest:
    """Which modules are stored how. Names are those of the loaded model."""

    schemes: Mapping[str, LinearScheme]
    kept: Collection[str] = ()
    """Linears that stay as they are."""
    others: Collection[str] = ()
    """Every other module of the model, so that no expression matches one by accident."""
    embeddings: Collection[str] = ()
    """Names in `schemes` that are embedding tables, or heads tied to one."""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """[out, in] of the names in `schemes`, as far as known."""


@dataclass(frozen=True)
class StoredItem:
    """One weight to store."""

    weight: QuantisedWeight
    scheme: LinearScheme
    static_input: StaticInput | None = None
    embedding: bool = False


class CheckpointFormat(Protocol):
    """One layout of quantised weights. Stateless."""

    name: str

    def refuse(self, request: FormatRequest) -> None:
        """Raise ConfigurationError for a request that this layout cannot express; look at nothing else."""

    def refuse_weight(self, module: str, weight: QuantisedWeight) -> None:
        """Raise ConfigurationError for values that this layout cannot hold."""

    def tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        """What is stored for one weight: suffix after the module's name (`weight_packed`) -> tensor."""

    def twin_tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        """What a module tied to this weight stores beside it, under its own name."""

    def config(self, request: FormatRequest) -> dict[str, Any]:
        """`quantization_config` of config.json, JSON types only."""


def not_expressible(format_name: str, module: str, found: str, limit: str, remedy: str) -> ConfigurationError:
    """The one shape of a refusal: what was asked for, what the layout holds, what to do."""
    return ConfigurationError(f"{module} is to be {found}; format {format_name} holds {limit}. {remedy}")
