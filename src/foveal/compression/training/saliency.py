"""How much the loss grows when a structure is removed, to second order: w^2 H / 2 (Optimal Brain Damage, LeCun 1990).

At a minimum the gradient vanishes, so zeroing weight w changes the loss by w^2 H / 2 with H the curvature. H is estimated
by the Fisher information: the mean of squared per-sample gradients of a log-likelihood.

Two sums over a structure are offered. "diagonal" adds w^2 F over all its weights and ignores how they act together.
"joint" is the curvature of one mask that scales the structure: the squared sum of w g over its outgoing weights, which
includes their cross terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from foveal.compression.training.decoder_stack import ATTENTION_INPUTS, FFN_INPUTS, DecoderStack
from foveal.core.errors import ConfigurationError

__all__ = [
    "Loss",
    "SaliencyKind",
    "StructureSaliency",
    "fisher_diagonal",
    "measure_saliency",
    "next_token_loss",
    "second_order_saliency",
]

Loss = Callable[[Any, Any], torch.Tensor]
"""`loss(model, sample)`: the negative log-likelihood of one sample, a scalar with a gradient."""
SaliencyKind = Literal["diagonal", "joint"]


def second_order_saliency(weight: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """Elementwise w^2 H / 2."""
    return weight.square() * curvature / 2


def next_token_loss(model: PreTrainedModel, sample: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean negative log-likelihood of `labels` (default: the input ids; -100 is skipped) under a causal model."""
    inputs = dict(sample)
    inputs.setdefault("labels", inputs["input_ids"])
    loss: torch.Tensor = model(**inputs, use_cache=False).loss
    return loss


def fisher_diagonal(module: nn.Module, samples: Iterable[Any], loss: Loss) -> dict[str, torch.Tensor]:
    """Mean squared per-sample gradient of every trainable parameter, by name. Raises ConfigurationError without samples."""
    parameters = dict(module.named_parameters())
    totals = {name: torch.zeros_like(p) for name, p in parameters.items() if p.requires_grad}
    count = 0
    for _ in _gradients(module, samples, loss):
        count += 1
        for name, total in totals.items():
            gradient = parameters[name].grad
            if gradient is not None:
                total += gradient.square()
    return {name: total / _at_least_one(count) for name, total in totals.items()}


@dataclass(frozen=True)
class StructureSaliency:
    """Estimated growth of the loss. kv_groups [layers, groups], ffn_channels [layers, channels], float64."""

    kv_groups: torch.Tensor
    ffn_channels: torch.Tensor


def measure_saliency(
    model: PreTrainedModel,
    stack: DecoderStack,
    samples: Iterable[Any],
    loss: Loss,
    kind: SaliencyKind = "joint",
    layers: Sequence[int] | None = None,
) -> StructureSaliency:
    """Saliency of every attention group and FFN channel of `layers` (default all; the others stay 0).

    One backward pass per sample; gradients are left cleared.
    """
    numbers = range(len(stack.layers)) if layers is None else layers
    groups = torch.zeros(len(stack.layers), stack.kv_groups, dtype=torch.float64)
    channels = torch.zeros(len(stack.layers), stack.ffn_channels, dtype=torch.float64)
    of_head, of_channel = (_joint_head, _joint_channel) if kind == "joint" else (_diagonal_head, _diagonal_channel)
    count = 0
    with _only_gradients_of(model, [stack.layers[number] for number in numbers], kind):
        for _ in _gradients(model, samples, loss):
            count += 1
            for number in numbers:
                groups[number] += of_head(stack.layers[number].self_attn, stack).double()
                channels[number] += of_channel(stack.layers[number].mlp).double()
    return StructureSaliency(groups / (2 * _at_least_one(count)), channels / (2 * _at_least_one(count)))


@contextmanager
def _only_gradients_of(model: nn.Module, layers: Sequence[nn.Module], kind: SaliencyKind) -> Iterator[None]:
    """Gradients of the weights that the sums read, and of no others: they cost a third of the pass."""
    outputs = [linear for layer in layers for linear in (layer.self_attn.o_proj, layer.mlp.down_proj)]
    read = outputs if kind == "joint" else [part for layer in layers for part in (layer.self_attn, layer.mlp)]
    wanted = {id(p) for module in read for p in module.parameters()}
    before = {p: p.requires_grad for p in model.parameters()}
    for parameter in before:
        parameter.requires_grad_(id(parameter) in wanted)
    try:
        yield
    finally:
        for parameter, needed in before.items():
            parameter.requires_grad_(needed)


def _gradients(module: nn.Module, samples: Iterable[Any], loss: Loss) -> Iterator[None]:
    """Yields once per sample, with that sample's gradients in place."""
    for sample in samples:
        module.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss(module, sample).backward()
        yield
    module.zero_grad(set_to_none=True)


def _at_least_one(count: int) -> int:
    if count == 0:
        raise ConfigurationError("saliency needs at least one calibration sample, found none")
    return count


def _products(linear: nn.Linear) -> torch.Tensor:
    """w g, [out, in]."""
    return (linear.weight.detach() * linear.weight.grad).double()


def _joint_head(attention: nn.Module, stack: DecoderStack) -> torch.Tensor:
    return _products(attention.o_proj).sum(0).view(stack.kv_groups, -1).sum(1).square()


def _joint_channel(ffn: nn.Module) -> torch.Tensor:
    return _products(ffn.down_proj).sum(0).square()


def _diagonal_head(attention: nn.Module, stack: DecoderStack) -> torch.Tensor:
    total = _products(attention.o_proj).square().sum(0).view(stack.kv_groups, -1).sum(1)
    for name in ATTENTION_INPUTS:
        total = total + _products(getattr(attention, name)).square().sum(1).view(stack.kv_groups, -1).sum(1)
    return total


def _diagonal_channel(ffn: nn.Module) -> torch.Tensor:
    total = _products(ffn.down_proj).square().sum(0)
    for name in FFN_INPUTS:
        total = total + _products(getattr(ffn, name)).square().sum(1)
    return total
