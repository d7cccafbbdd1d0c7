"""What a whole layer does to the model: how far it turns its input, or how far the output moves without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from foveal.compression.training.decoder_stack import DecoderStack
from foveal.core.errors import ConfigurationError

__all__ = ["LayerMeasure", "layer_importance", "without_layer"]

LayerMeasure = Literal["cosine", "divergence"]


@torch.no_grad()
def layer_importance(
    model: PreTrainedModel, stack: DecoderStack, samples: Iterable[dict[str, Any]], measure: LayerMeasure = "divergence"
) -> torch.Tensor:
    """[layers] float64; larger matters more.

    "cosine": 1 - cos(input, output) of the layer, mean over tokens (Block Influence of ShortGPT, Men et al. 2024), one
    pass per sample. "divergence": KL of the next-token distribution when only this layer is skipped, one pass per
    sample and layer.
    """
    chosen = list(samples)
    if not chosen:
        raise ConfigurationError("layer importance needs at least one calibration sample, found none")
    per_sample = _turning if measure == "cosine" else _divergence
    return torch.stack([per_sample(model, stack, sample) for sample in chosen]).mean(0)


@contextmanager
def without_layer(layer: nn.Module) -> Iterator[None]:
    """Within the block, `layer` hands its input on unchanged."""

    def pass_on(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        state = args[0] if args else kwargs["hidden_states"]
        return (state, *output[1:]) if isinstance(output, tuple) else state

    handle = layer.register_forward_hook(pass_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _turning(model: PreTrainedModel, stack: DecoderStack, sample: dict[str, Any]) -> torch.Tensor:
    found = torch.zeros(len(stack.layers), dtype=torch.float64)

    def watch(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            found[number] = 1 - F.cosine_similarity(before.double(), after.double(), dim=-1).mean()

        return hook

    handles = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(stack.layers)]
    try:
        model(**sample, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _divergence(model: PreTrainedModel, stack: DecoderStack, sample: dict[str, Any]) -> torch.Tensor:
    whole = model(**sample, use_cache=False).logits.double().log_softmax(-1).flatten(0, -2)
    found = []
    for layer in stack.layers:
        with without_layer(layer):
            less = model(**sample, use_cache=False).logits.double().log_softmax(-1).flatten(0, -2)
        found.append(F.kl_div(less, whole, reduction="batchmean", log_target=True))
    return torch.stack(found)
