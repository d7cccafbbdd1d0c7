"""The shipped draft: its layers and final norm in fp16, one safetensors file. Embedding and head are the target's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from foveal.demo.errors import ModelSourceError

__all__ = ["LIMIT_BYTES", "SHIPPED_DRAFT", "draft_config", "load_draft", "save_draft"]

SHIPPED_DRAFT = Path(__file__).parents[1] / "weights" / "draft.safetensors"
LIMIT_BYTES = 20_000_000
_SIZES = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")


def save_draft(path: Path, draft: LlamaForCausalLM, metadata: dict[str, str]) -> None:
    """Writes fp16 without the embedding. Raises ModelSourceError beyond 20 MB or fp16's range."""
    halves = {
        name: value.detach().half().contiguous()
        for name, value in draft.model.state_dict().items()
        if not name.startswith("embed_tokens")
    }
    broken = [name for name, value in halves.items() if not value.isfinite().all()]
    if broken:
        raise ModelSourceError(f"{len(broken)} draft tensors do not fit into fp16 (first: {broken[0]})")
    size = sum(value.numel() * value.element_size() for value in halves.values())
    if size > LIMIT_BYTES:
        raise ModelSourceError(
            f"the draft has {size / 1e6:.1f} MB in fp16; at most {LIMIT_BYTES / 1e6:.0f} MB are shipped. "
            f"Take fewer layers or FFN channels."
        )
    sizes = {name: getattr(draft.config, name) for name in _SIZES}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, path, metadata=metadata | {"sizes": json.dumps(sizes)})
    path.chmod(0o644)  # safetensors writes files that only their owner can read


def draft_config(path: Path, target: LlamaConfig) -> LlamaConfig:
    """The target's text configuration with the draft's sizes. Raises ModelSourceError when the file is missing."""
    if not path.is_file():
        raise ModelSourceError(f"the draft {path} is missing; reinstall Foveal or train one (docs/demo-draft.md)")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "sizes" not in metadata:
        raise ModelSourceError(f"{path} does not say its sizes: it is not a draft. Reinstall Foveal.")
    return LlamaConfig(**target.to_dict() | json.loads(metadata["sizes"]))


@torch.no_grad()
def load_draft(path: Path, target: LlamaForCausalLM) -> LlamaForCausalLM:
    """fp32 with a copy of the target's embedding, which is also the head. Raises ModelSourceError if it does not fit."""
    draft = LlamaForCausalLM(draft_config(path, target.config)).float().eval()
    state = {name: value.float() for name, value in load_file(path).items()}
    state["embed_tokens.weight"] = target.get_input_embeddings().weight.float()
    try:
        draft.model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelSourceError(
            f"{path} does not fit the target: {error}. Use the draft that was trained for it."
        ) from error
    draft.tie_weights()
    return draft
