"""The one judge of both results: packed weights made dense here, then plain transformers over the test windows.

It shares no code with either compressor: the packed layout is read with numpy from what compressed-tensors publishes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

__all__ = ["dense_tensors", "load_dense", "perplexity"]

_BITS_IN_WORD = 32


def dense_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a pack-quantized checkpoint under their dense names, `NAME.weight` in float32 for packed linears.

    Raises ValueError for another layout, so that nothing is judged by accident.
    """
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    groups = list(config["config_groups"].values())
    if len(groups) != 1 or groups[0].get("format", config["format"]) != "pack-quantized":
        raise ValueError(f"{checkpoint} is not one group of pack-quantized weights: {config}")
    bits = groups[0]["weights"]["num_bits"]
    stored: dict[str, torch.Tensor] = {}
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(shard, "pt") as opened:
            stored |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    packed = [name.removesuffix("_packed") for name in stored if name.endswith(".weight_packed")]
    dense = {name: tensor for name, tensor in stored.items() if not name.startswith(tuple(f"{one}_" for one in packed))}
    for name in packed:
        shape = stored[f"{name}_shape"].tolist()
        codes = _unpack(stored[f"{name}_packed"].numpy(), bits, shape[1])
        scale = stored[f"{name}_scale"].float().numpy()
        dense[name] = torch.from_numpy(codes * np.repeat(scale, shape[1] // scale.shape[1], axis=1))
    return dense


def load_dense(model: Path, weights: Path | None = None) -> PreTrainedModel:
    """The model of directory `model`, with the dense weights of `weights` (None: its own).

    Raises ValueError unless every tensor has its place and every place its tensor.
    """
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if weights is not None:
        tensors = dense_tensors(weights)
        missing, unexpected = loaded.load_state_dict(tensors, strict=False)
        missing = [name for name in missing if name != "lm_head.weight"]
        if missing or unexpected:
            raise ValueError(f"{weights}: missing {missing}, unexpected {unexpected}")
    return loaded.eval()


@torch.inference_mode()
def perplexity(model: PreTrainedModel, windows: Sequence[Sequence[int]]) -> float:
    """exp(mean negative log-likelihood) over all tokens of the windows but each first."""
    total, count = 0.0, 0
    for window in windows:
        ids = torch.tensor([window])
        logits = model(ids).logits[0, :-1].double()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(window) - 1
    return math.exp(total / count)


def _unpack(words: npt.NDArray[np.int32], bits: int, columns: int) -> npt.NDArray[np.float32]:
    """int32 [out, in / (32 // bits)], lowest bits first, stored with 2^(bits - 1) added -> signed codes [out, in]."""
    shifts = np.arange(0, _BITS_IN_WORD, bits, dtype=np.uint32)
    fields = (words.view(np.uint32)[:, :, None] >> shifts) & np.uint32(2**bits - 1)
    return fields.reshape(len(words), -1)[:, :columns].astype(np.float32) - 2 ** (bits - 1)
