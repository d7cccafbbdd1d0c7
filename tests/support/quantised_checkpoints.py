"""Tiny checkpoints rounded to nearest, with what they must load as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from foveal.compression.formats.writer import write_checkpoint
from foveal.kernels.quantisation.affine import QuantisedWeight, quantise
from foveal.kernels.quantisation.scheme import LinearScheme, parse_linear
from foveal.models.loading import load_checkpoint
from foveal.models.quantised.input_rounding import InputRounding, StaticInput
from foveal.models.quantised.rounded_linear import round_inputs
from support.tiny_models import tiny_checkpoint

__all__ = ["RoundedCheckpoint", "all_linears", "round_to_nearest", "tables", "write_rounded"]

SchemeOf = Callable[[str, torch.nn.Module], str | None]
"""Module name and module -> name of a scheme, or None to keep it."""


@dataclass(frozen=True)
class RoundedCheckpoint:
    """What was written, and the model in memory that it came from, with its weights and inputs rounded."""

    path: Path
    quantised: dict[str, QuantisedWeight]
    schemes: dict[str, LinearScheme]
    model: PreTrainedModel


def all_linears(scheme: str) -> SchemeOf:
    """Every linear but the head."""
    return lambda name, module: scheme if isinstance(module, torch.nn.Linear) and name != "lm_head" else None


def tables(scheme: str) -> SchemeOf:
    """The token embeddings only."""
    return lambda name, module: scheme if name.endswith(("embed_tokens", "wte")) else None


def round_to_nearest(
    model: PreTrainedModel, scheme_of: SchemeOf
) -> tuple[dict[str, QuantisedWeight], dict[str, LinearScheme], dict[str, StaticInput]]:
    """Weights, schemes and, for static ones, made-up input ranges; `model` itself becomes what they stand for."""
    quantised, schemes, static = {}, {}, {}
    for name, module in list(model.named_modules()):
        if (wanted := scheme_of(name, module)) is None:
            continue
        schemes[name] = scheme = parse_linear(wanted)
        quantised[name] = quantise(module.weight.detach(), scheme.weight)
        module.weight.data.copy_(quantised[name].dequantise())
        if scheme.activation is not None and not scheme.activation.dynamic:
            zero_point = None if scheme.activation.symmetric else torch.tensor([100], dtype=torch.int32)
            static[name] = StaticInput(torch.tensor([0.03]), zero_point)
    round_inputs(
        model,
        {
            name: InputRounding(scheme.activation, static.get(name))
            for name, scheme in schemes.items()
            if scheme.activation is not None
        },
    )
    return quantised, schemes, static


def write_rounded(
    family: str,
    out: Path,
    scheme_of: SchemeOf,
    format: str = "compressed-tensors",  # noqa: A002
    **options: object,
) -> RoundedCheckpoint:
    """The tiny model of `family` in `out`."""
    model = load_checkpoint(tiny_checkpoint(family)).model
    quantised, schemes, static = round_to_nearest(model, scheme_of)
    write_checkpoint(tiny_checkpoint(family), out, quantised, schemes, format=format, static_inputs=static, **options)
    return RoundedCheckpoint(out, quantised, schemes, model)
