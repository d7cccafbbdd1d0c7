"""The prunable parts of a Hugging Face decoder: its layers, their attention groups and their FFN channels.

A GQA group is one key/value head with all query heads that read it; with plain multi-head attention a group is one head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from foveal.core.errors import ConfigurationError

__all__ = ["ATTENTION_INPUTS", "FFN_INPUTS", "DecoderStack", "find_decoder_stack"]

ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj")
FFN_INPUTS = ("gate_proj", "up_proj")
_ATTENTION_OUTPUT, _FFN_OUTPUT = "o_proj", "down_proj"


@dataclass(frozen=True)
class DecoderStack:
    """Sizes of the stack and the name of its list of layers inside the model, e.g. `model.language_model.layers`."""

    name: str
    layers: tuple[nn.Module, ...]
    heads: int
    kv_groups: int
    head_dim: int
    ffn_channels: int

    @property
    def heads_per_group(self) -> int:
        return self.heads // self.kv_groups


def find_decoder_stack(model: PreTrainedModel) -> DecoderStack:
    """The text decoder of a language or vision-language model.

    Raises ConfigurationError when its layers are not Llama-shaped (q, k, v, o and gate, up, down as separate linears).
    """
    decoder = model.get_decoder()
    layers = tuple(getattr(decoder, "layers", ()))
    for number, layer in enumerate(layers):
        attention, ffn = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
        absent = [
            n for n in (*ATTENTION_INPUTS, _ATTENTION_OUTPUT) if not isinstance(getattr(attention, n, None), nn.Linear)
        ]
        absent += [n for n in (*FFN_INPUTS, _FFN_OUTPUT) if not isinstance(getattr(ffn, n, None), nn.Linear)]
        if absent:
            raise ConfigurationError(
                f"layer {number} of {type(decoder).__name__} lacks the linears {', '.join(absent)}; structured pruning "
                f"knows Llama-shaped decoders only. Quantise this model instead."
            )
    if not layers:
        raise ConfigurationError(
            f"{type(decoder).__name__} has no list of layers; structured pruning knows Llama-shaped decoders only"
        )
    name = next(name for name, module in model.named_modules() if module is decoder)
    text = model.config.get_text_config()
    heads = text.num_attention_heads
    first = layers[0]
    return DecoderStack(
        name=f"{name}.layers" if name else "layers",
        layers=layers,
        heads=heads,
        kv_groups=text.num_key_value_heads,
        head_dim=first.self_attn.q_proj.out_features // heads,
        ffn_channels=first.mlp.down_proj.in_features,
    )
