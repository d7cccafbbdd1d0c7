"""Where a per-channel scale of a linear's input can be folded away, written out per kind of block.

A scale is invisible only if what stands before the linear is itself linear per channel: a norm's weight, the value
projection before the output projection (attention averages values), or the up projection before the down projection of a
gated MLP. A GELU in between forbids it. What is not written here is not scaled, and the record says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["BlockMappings", "Mapping", "mappings_of"]


@dataclass(frozen=True)
class Mapping:
    """Names are relative to the block. `source` divides by the scale, `consumers` multiply."""

    source: str
    consumers: tuple[str, ...]
    channels: torch.Tensor
    """[in] source channel of each input column of the consumers."""
    first_row: int = 0
    """Where a linear source starts: the values of a packed qkv."""
    offset: float = 0.0
    """Gemma's norms multiply by 1 + weight."""


@dataclass(frozen=True)
class BlockMappings:
    mappings: tuple[Mapping, ...]
    unscaled: dict[str, str]
    """Linears that no mapping covers -> why."""


@dataclass(frozen=True)
class _Fold:
    source: str
    consumers: tuple[str, ...]
    packed_values: bool = False


@dataclass(frozen=True)
class _Layout:
    folds: tuple[_Fold, ...] = ()
    unscaled: tuple[tuple[str, str], ...] = ()
    offset: float = 0.0


_GELU = "a GELU stands between it and the linear before it"
_FEATURES = "its input comes from the tower, whose other readers would see the scale"
_CONV1D = "GPT-2 keeps its weights as Conv1D, which Foveal does not quantise"


def _attention(prefix: str, norm: str, output: str) -> tuple[_Fold, _Fold]:
    projections = tuple(f"{prefix}.{name}_proj" for name in "qkv")
    return _Fold(norm, projections), _Fold(f"{prefix}.v_proj", (f"{prefix}.{output}",))


def _gated(norm: str) -> tuple[_Fold, _Fold]:
    return _Fold(norm, ("mlp.gate_proj", "mlp.up_proj")), _Fold("mlp.up_proj", ("mlp.down_proj",))


_LLAMA = _Layout(
    (*_attention("self_attn", "input_layernorm", "o_proj"), *_gated("post_attention_layernorm")),
)
_CLIP = _Layout(
    (*_attention("self_attn", "layer_norm1", "out_proj"), _Fold("layer_norm2", ("mlp.fc1",))),
    (("mlp.fc2", _GELU),),
)
_QWEN_ATTENTION = (_Fold("norm1", ("attn.qkv",)), _Fold("attn.qkv", ("attn.proj",), packed_values=True))
_TWO_LINEARS = _Layout(unscaled=(("linear_1", _FEATURES), ("linear_2", _GELU)))

_LAYOUTS = {
    # Language models.
    "LlamaDecoderLayer": _LLAMA,
    "MistralDecoderLayer": _LLAMA,
    "Qwen2DecoderLayer": _LLAMA,
    "Qwen3DecoderLayer": _LLAMA,
    "Qwen2_5_VLDecoderLayer": _LLAMA,
    "Qwen3VLTextDecoderLayer": _LLAMA,
    "Gemma3DecoderLayer": _Layout(
        (*_attention("self_attn", "input_layernorm", "o_proj"), *_gated("pre_feedforward_layernorm")), offset=1.0
    ),
    "GPT2Block": _Layout(
        unscaled=tuple((name, _CONV1D) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
    ),
    # Vision towers. Layer scale (DINOv2, InternVL) stands behind the output projections and does not matter here.
    "CLIPEncoderLayer": _CLIP,
    "SiglipEncoderLayer": _CLIP,
    "Idefics3EncoderLayer": _CLIP,
    "SmolVLMEncoderLayer": _CLIP,
    "Dinov2Layer": _Layout(
        (*_attention("attention", "norm1", "o_proj"), _Fold("norm2", ("mlp.fc1",)), *_gated("norm2")),
        (("mlp.fc2", _GELU),),
    ),
    "InternVLVisionLayer": _Layout(
        (*_attention("attention", "layernorm_before", "projection_layer"), _Fold("layernorm_after", ("mlp.fc1",))),
        (("mlp.fc2", _GELU),),
    ),
    "Qwen2_5_VLVisionBlock": _Layout((*_QWEN_ATTENTION, *_gated("norm2"))),
    "Qwen3VLVisionBlock": _Layout(
        (*_QWEN_ATTENTION, _Fold("norm2", ("mlp.linear_fc1",))), (("mlp.linear_fc2", _GELU),)
    ),
    # Projectors.
    "LlavaMultiModalProjector": _TWO_LINEARS,
    "LlavaNextMultiModalProjector": _TWO_LINEARS,
    "InternVLMultiModalProjector": _Layout((_Fold("layer_norm", ("linear_1",)),), (("linear_2", _GELU),)),
    "Idefics3Connector": _Layout(unscaled=(("modality_projection.proj", _FEATURES),)),
    "SmolVLMConnector": _Layout(unscaled=(("modality_projection.proj", _FEATURES),)),
    "Qwen2_5_VLPatchMerger": _Layout((_Fold("ln_q", ("mlp.0",)),), (("mlp.2", _GELU),)),
    "Qwen3VLVisionPatchMerger": _Layout((_Fold("norm", ("linear_fc1",)),), (("linear_fc2", _GELU),)),
}


def mappings_of(block: torch.nn.Module) -> BlockMappings:
    """The mappings of a tower layer, projector or decoder layer, by its class. Unknown classes have none."""
    kind = type(block).__name__
    linears = {name for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
    layout = _LAYOUTS.get(kind)
    if layout is None:
        return BlockMappings((), dict.fromkeys(linears, f"no scale mapping is written for {kind}"))
    mappings = []
    unscaled = {name: reason for name, reason in layout.unscaled if name in linears or kind == "GPT2Block"}
    for fold in layout.folds:
        # A layout may list what only some configurations have: DINOv2's gated MLP.
        if not all(name in linears for name in fold.consumers):
            continue
        channels = _channels(block, fold)
        if channels is None:
            unscaled |= dict.fromkeys(fold.consumers, f"its width does not fit that of {fold.source}")
            continue
        source = block.get_submodule(fold.source)
        first_row = 2 * source.out_features // 3 if fold.packed_values else 0
        offset = 0.0 if isinstance(source, torch.nn.Linear) else layout.offset
        mappings.append(Mapping(fold.source, fold.consumers, channels, first_row, offset))
    covered = {name for mapping in mappings for name in mapping.consumers}
    for name in linears - covered - unscaled.keys():
        unscaled[name] = f"no scale mapping is written for it in {kind}"
    return BlockMappings(tuple(mappings), unscaled)


def _channels(block: torch.nn.Module, fold: _Fold) -> torch.Tensor | None:
    """[in] source channel per input column, or None where the widths do not fit."""
    source = block.get_submodule(fold.source)
    width = block.get_submodule(fold.consumers[0]).in_features
    if not isinstance(source, torch.nn.Linear):
        size = source.weight.numel()
        # Mergers lay several patches side by side: each patch has the norm's channels.
        return torch.arange(width) % size if width % size == 0 else None
    size = source.out_features // 3 if fold.packed_values else source.out_features
    if width == size:
        return torch.arange(width)
    head_dim = getattr(block.get_submodule(fold.source.rpartition(".")[0]), "head_dim", None)
    if head_dim is None or width % size or size % head_dim:
        return None
    # Grouped queries: several query heads read one value head.
    head, place = torch.arange(width) // head_dim, torch.arange(width) % head_dim
    return head // (width // size) * head_dim + place
