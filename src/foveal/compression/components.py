"""Which part of a vision-language model a module belongs to, read from its place in the loaded model. No torch.

Names are module names of the transformers model, for example `model.language_model.layers.0.self_attn.q_proj`. The part
is decided by structure (what the model itself calls its decoder, its embeddings and its head) and, outside the decoder,
by the container that every family names in one of a few ways.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal, get_args

from foveal.core.errors import ConfigurationError

__all__ = [
    "COMPONENTS",
    "Component",
    "blocks_of",
    "component_of",
    "layer_of",
    "matrices",
    "module_name",
    "structural_reason",
]

Component = Literal["vision", "projector", "embedding", "attention", "ffn", "head"]
COMPONENTS: tuple[Component, ...] = get_args(Component)

_TOWERS = {"vision_tower", "vision_model", "visual"}
_PROJECTORS = {"multi_modal_projector", "connector", "merger", "deepstack_merger_list"}
_BLOCK_LISTS = {"layers", "layer", "blocks", "h"}
_ATTENTION = {"self_attn", "attn", "attention"}
_FFN = {"mlp", "feed_forward", "ffn"}


def component_of(name: str, model: Any) -> Component:
    """The component of a matrix (linear, convolution, embedding) of a transformers model.

    Raises ConfigurationError for a module that is in no known place: an unknown part must not be quantised by chance.
    """
    if name == module_name(model, model.get_output_embeddings()):
        return "head"
    parts = name.split(".")
    decoder = module_name(model, model.get_decoder())
    if name == decoder or name.startswith(decoder + "."):
        inside = set(parts[len(decoder.split(".")) :])
        if inside & _ATTENTION:
            return "attention"
        if inside & _FFN:
            return "ffn"
        if not inside & _BLOCK_LISTS:
            return "embedding"  # the token table and, in GPT-2, the position table
    elif _PROJECTORS & set(parts):
        return "projector"
    elif _TOWERS & set(parts):
        return "vision"
    raise ConfigurationError(
        f"module {name} of {type(model).__name__} is in no part that Foveal knows ({', '.join(COMPONENTS)}). Keep it as it "
        "is, or teach component_of where this family puts it."
    )


def layer_of(name: str) -> int | None:
    """The number of the block that a module is in, counted in its own stack (tower or decoder); None outside blocks."""
    parts = name.split(".")
    if _PROJECTORS & set(parts):
        return None
    for before, part in itertools.pairwise(parts):
        if before in _BLOCK_LISTS and part.isdigit():
            return int(part)
    return None


def blocks_of(model: Any, component: Literal["vision", "language"]) -> list[Any]:
    """The repeated blocks of the tower or of the decoder, in order; empty where the model has none."""
    decoder = module_name(model, model.get_decoder()) + "."
    for name, module in model.named_modules():
        parts = name.split(".")
        inside = "language" if name.startswith(decoder) else "vision" if _TOWERS & set(parts) else None
        if inside == component and parts[-1] in _BLOCK_LISTS and hasattr(module, "__getitem__"):
            return list(module)
    return []


def module_name(model: Any, module: Any) -> str:
    """The name under which `model` holds `module`; empty if it is the model itself or None."""
    return next((name for name, found in model.named_modules() if found is module), "") if module is not None else ""


def matrices(model: Any) -> Iterator[tuple[str, Any, tuple[int, int]]]:
    """(name, module, [out, in]) of every linear and of the token table, in the model's order.

    GPT-2's Conv1D keeps its weight as [in, out]; the shape given here is that of the linear map. Convolutions, position
    tables and normalisation are no matrices in this sense, nor is what `structural_reason` excludes.
    """
    tokens = model.get_input_embeddings()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2 or structural_reason(name, model) is not None:
            continue
        rows, columns = weight.shape
        if hasattr(module, "in_features") or module is tokens:
            yield name, module, (rows, columns)
        elif hasattr(module, "nf"):
            yield name, module, (columns, rows)


def structural_reason(name: str, model: Any) -> str | None:
    """Why a module with a two-dimensional weight can never be quantised, or None if it can."""
    *path, _ = parents = list(_path(name, model))
    for parent in path:
        kind = type(parent).__name__
        if "PoolingHead" in kind:
            return "pools the tower's output for tasks that this model does not do: never runs"
        if "MultiheadAttention" in kind:
            return "torch's MultiheadAttention reads its weights itself"
    if hasattr(parents[-1], "num_embeddings") and parents[-1] is not model.get_input_embeddings():
        return "a table of positions: small, and read one row at a time"
    return None


def _path(name: str, model: Any) -> Iterator[Any]:
    """The modules from the model down to `name`, the last one included."""
    yield model
    module = model
    for part in name.split(".") if name else ():
        module = getattr(module, part)
        yield module
