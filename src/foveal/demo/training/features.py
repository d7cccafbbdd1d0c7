"""Vision features of the pool, computed once: the frozen tower's patch states of the layers the projector reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import Dinov2Model

__all__ = ["FEATURE_LAYERS", "NUM_PATCHES", "PICTURE_SIDE", "extract", "patch_features", "to_pixels"]

FEATURE_LAYERS = (4, 8, 12)
PICTURE_SIDE = 112
NUM_PATCHES = (PICTURE_SIDE // 14) ** 2
FEATURE_WIDTH = 384 * len(FEATURE_LAYERS)
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def to_pixels(picture: Image.Image) -> np.ndarray:
    """uint8 [112, 112, 3], resized as the model's image processor does."""
    return np.asarray(picture.resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC))


@torch.inference_mode()
def patch_features(tower: Dinov2Model, pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, 112, 112, 3] -> fp32 [n, 64, 1152]: the states after layers 4, 8 and 12, without the class token."""
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0 - _MEAN) / _DEVIATION
    states = tower(values, output_hidden_states=True).hidden_states
    return torch.cat([states[layer][:, 1:] for layer in FEATURE_LAYERS], dim=-1)


def extract(
    tower: Dinov2Model,
    pictures: Sequence[Callable[[], Image.Image]],
    store: Path,
    progress: Callable[[int, int], None],
    batch: int = 32,
) -> np.ndarray:
    """fp16 [n, 64, 1152], memory-mapped at `store`. A killed run goes on where it was: the count lies beside it."""
    count_file = store.with_suffix(".count")
    done = int(count_file.read_text()) if count_file.exists() and store.exists() else 0
    shape = (len(pictures), NUM_PATCHES, FEATURE_WIDTH)
    features = np.lib.format.open_memmap(store, mode="r+" if done else "w+", dtype=np.float16, shape=shape)
    for start in range(done, len(pictures), batch):
        pixels = np.stack([to_pixels(picture()) for picture in pictures[start : start + batch]])
        features[start : start + len(pixels)] = patch_features(tower, pixels).half().numpy()
        count_file.write_text(str(start + len(pixels)))
        progress(start + len(pixels), len(pictures))
    return features
