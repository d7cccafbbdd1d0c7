"""Structured pruning to a plain, smaller checkpoint: whole layers, attention groups, FFN channels.

The same number of groups and channels is kept in every layer (each layer chooses its own), so the result is an ordinary
configuration with smaller numbers that any program loads. The decoder is pruned; a vision tower stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from foveal.compression.training.decoder_stack import ATTENTION_INPUTS, FFN_INPUTS, DecoderStack, find_decoder_stack
from foveal.compression.training.layer_importance import LayerMeasure, layer_importance
from foveal.compression.training.saliency import (
    Loss,
    SaliencyKind,
    StructureSaliency,
    measure_saliency,
    next_token_loss,
)
from foveal.core.errors import ConfigurationError

__all__ = ["Kept", "PruneTarget", "choose_structures", "prune", "slim"]

_PER_LAYER_SETTINGS = ("layer_types", "no_rope_layers")


@dataclass(frozen=True)
class PruneTarget:
    """How much stays; None keeps all."""

    layers: int | None = None
    kv_groups: int | None = None
    ffn_channels: int | None = None

    def checked(self, stack: DecoderStack) -> PruneTarget:
        """With None replaced by the present size. Raises ConfigurationError for sizes outside 1..present."""
        present = {"layers": len(stack.layers), "kv_groups": stack.kv_groups, "ffn_channels": stack.ffn_channels}
        sizes = {
            name: getattr(self, name) if getattr(self, name) is not None else most for name, most in present.items()
        }
        for name, size in sizes.items():
            if not 1 <= size <= present[name]:
                raise ConfigurationError(
                    f"pruning was asked to keep {size} {name}; the model has {present[name]}. Keep 1 to {present[name]}."
                )
        return PruneTarget(**sizes)


@dataclass(frozen=True)
class Kept:
    """Indices that stay, ascending: original layers, and for each of them its groups and channels."""

    layers: tuple[int, ...]
    kv_groups: tuple[tuple[int, ...], ...]
    ffn_channels: tuple[tuple[int, ...], ...]


def prune(
    model: PreTrainedModel,
    samples: Sequence[dict[str, Any]],
    target: PruneTarget,
    *,
    loss: Loss = next_token_loss,
    kind: SaliencyKind = "joint",
    layer_measure: LayerMeasure = "divergence",
    keep_layers: Sequence[int] | None = None,
) -> tuple[PreTrainedModel, Kept]:
    """The smaller model and what it kept. `samples` are keyword inputs of the model; `model` is not changed.

    `keep_layers` overrides the choice of layers. Raises ConfigurationError for impossible sizes or unknown shapes.
    """
    stack = find_decoder_stack(model)
    sizes = target.checked(stack)
    if keep_layers is not None:
        layers = tuple(sorted(keep_layers))
    elif sizes.layers == len(stack.layers):
        layers = tuple(range(len(stack.layers)))
    else:
        layers = _largest(layer_importance(model, stack, samples, layer_measure), sizes.layers)
    if sizes.kv_groups == stack.kv_groups and sizes.ffn_channels == stack.ffn_channels:
        saliency = _all_equal(stack)
    else:
        saliency = measure_saliency(model, stack, samples, loss, kind, layers)
    kept = choose_structures(saliency, layers, sizes)
    return slim(model, kept), kept


def choose_structures(saliency: StructureSaliency, layers: Sequence[int], sizes: PruneTarget) -> Kept:
    """The most salient groups and channels of each kept layer. `sizes` must be checked."""
    assert sizes.kv_groups is not None
    assert sizes.ffn_channels is not None
    return Kept(
        tuple(layers),
        tuple(_largest(saliency.kv_groups[number], sizes.kv_groups) for number in layers),
        tuple(_largest(saliency.ffn_channels[number], sizes.ffn_channels) for number in layers),
    )


@torch.no_grad()
def slim(model: PreTrainedModel, kept: Kept) -> PreTrainedModel:
    """A new model of the same class with only the kept structures; weights are copies.

    Raises ConfigurationError if the family cannot express the shape (one that derives the head size from the width
    cannot lose heads).
    """
    stack = find_decoder_stack(model)
    config = copy.deepcopy(model.config)
    _shrink(config.get_text_config(), stack, kept)
    try:
        smaller = type(model)(config).to(model.dtype).eval()
        smaller.load_state_dict(dict(_slices(model.state_dict(), stack, kept)))
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"{type(model).__name__} cannot be built with {len(kept.layers)} layers of {len(kept.kv_groups[0])} attention "
            f"groups and {len(kept.ffn_channels[0])} channels: {error}. Keep all heads, or prune layers and channels only."
        ) from error
    smaller.tie_weights()
    smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller


def _shrink(text: Any, stack: DecoderStack, kept: Kept) -> None:
    groups = len(kept.kv_groups[0])
    text.num_hidden_layers = len(kept.layers)
    text.num_key_value_heads = groups
    text.num_attention_heads = groups * stack.heads_per_group
    text.head_dim = stack.head_dim  # no longer width / heads
    text.intermediate_size = len(kept.ffn_channels[0])
    for name in _PER_LAYER_SETTINGS:
        values = getattr(text, name, None)
        if isinstance(values, list) and len(values) == len(stack.layers):
            setattr(text, name, [values[number] for number in kept.layers])


def _slices(state: dict[str, torch.Tensor], stack: DecoderStack, kept: Kept) -> Iterator[tuple[str, torch.Tensor]]:
    prefix = stack.name + "."
    place = {number: new for new, number in enumerate(kept.layers)}
    for name, value in state.items():
        if not name.startswith(prefix):
            yield name, value
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        new = place.get(int(number))
        if new is None:
            continue
        yield f"{prefix}{new}.{rest}", _slice(rest, value, stack, kept.kv_groups[new], kept.ffn_channels[new])


def _slice(
    name: str, value: torch.Tensor, stack: DecoderStack, groups: Sequence[int], channels: Sequence[int]
) -> torch.Tensor:
    linear, _, kind = name.rpartition(".")
    linear = linear.rpartition(".")[2]
    if linear in ATTENTION_INPUTS:
        return value.unflatten(0, (stack.kv_groups, -1))[list(groups)].flatten(0, 1)
    if linear == "o_proj" and kind == "weight":
        return value.unflatten(1, (stack.kv_groups, -1))[:, list(groups)].flatten(1)
    if linear in FFN_INPUTS:
        return value[list(channels)]
    if linear == "down_proj" and kind == "weight":
        return value[:, list(channels)]
    return value


def _largest(values: torch.Tensor, count: int) -> tuple[int, ...]:
    """Indices of the `count` largest values, ascending; among equals the first."""
    order = torch.sort(values, descending=True, stable=True).indices[:count]
    return tuple(sorted(order.tolist()))


def _all_equal(stack: DecoderStack) -> StructureSaliency:
    """Where every structure stays, none needs to be measured."""
    layers = len(stack.layers)
    return StructureSaliency(torch.zeros(layers, stack.kv_groups), torch.zeros(layers, stack.ffn_channels))
