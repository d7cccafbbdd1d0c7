"""What each vision patch should look like to the language model, written in its own word embeddings.

A rendered picture's geometry is known, so every patch has a target: the words of the thing on it, at full strength where
its centre lies, plus how far left, right, above or below that is. Blank patches get one constant word. The projector can
learn this without running the language model, which then finds something close to text in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from foveal.demo.training.features import NUM_PATCHES
from foveal.demo.training.pool import Example
from foveal.evaluation.tasks.render import mask
from foveal.evaluation.tasks.scene import Thing

__all__ = ["TARGET_WORDS", "WordBasis", "patch_weights"]

GRID = 8
_MASK_SIDE = 64
_BODY = 0.35
_BLANK = "empty"
_SIDES = ("left", "right", "above", "below")


@dataclass(frozen=True)
class WordBasis:
    """The words used in targets: `index` by word, `vectors` fp32 [words, hidden], scaled to one common norm."""

    index: dict[str, int]
    vectors: torch.Tensor

    @classmethod
    def build(cls, words: list[str], tokenizer: PreTrainedTokenizerBase, embeddings: torch.Tensor) -> WordBasis:
        """The first token of each word, with the leading space it has inside a sentence."""
        rows = [tokenizer.encode((" " if not w.isdigit() else "") + w, add_special_tokens=False)[0] for w in words]
        vectors = embeddings[rows].float()
        vectors = vectors - embeddings.float().mean(0)
        vectors = vectors / vectors.norm(dim=1, keepdim=True) * embeddings.float().norm(dim=1).mean()
        return cls({word: i for i, word in enumerate(words)}, vectors)


TARGET_WORDS = [
    *["red", "green", "blue", "yellow", "black", "orange", "purple", "pink", "brown", "gray", "teal"],
    *["circle", "square", "triangle", "star", "rectangle", "bar", "digit", "letter"],
    *["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    *["animal", "food", "plant", "vehicle", "building", "person", "flag"],
    *_SIDES,
    "tall",
    "short",
    "object",
    _BLANK,
]


def patch_weights(example: Example, basis: WordBasis) -> tuple[np.ndarray, np.ndarray]:
    """Mixture weights fp16 [64, words] and how much each patch's error counts, fp16 [64]."""
    weights = np.zeros((NUM_PATCHES, len(basis.index)), np.float32)
    importance = np.full(NUM_PATCHES, 0.3, np.float32)
    if not example.things:
        for word in example.words:
            weights[:, basis.index[word]] = 0.7
        weights[:, basis.index[_BLANK]] = 0.3
        return weights.astype(np.float16), (importance * (0.5 if example.words else 0.0)).astype(np.float16)
    blank = np.ones(NUM_PATCHES, np.float32)
    for thing in example.things:
        strength, centre = _strength(thing), _centre_weights(*_anchor(thing))
        for word, scale in _words(thing).items():
            weights[:, basis.index[word]] += scale * strength
        weights[:, basis.index["object"]] += centre
        blank -= strength
        importance += 2.0 * strength
    weights[:, basis.index[_BLANK]] += np.clip(blank, 0, 1)
    return weights.astype(np.float16), importance.astype(np.float16)


def _anchor(thing: Thing) -> tuple[float, float]:
    """Where a thing is marked: its centre, but a bar at its top, where its height shows."""
    if thing.form == "bar":
        return thing.x, thing.y - thing.height / 2 + 0.5 / GRID
    return thing.x, thing.y


def _words(thing: Thing) -> dict[str, float]:
    """Words with their scales; positions and heights are graded."""
    words = {thing.colour: 1.0}
    if thing.form == "bar":
        words |= {"bar": 0.6, "tall": 1.5 * thing.height, "short": 1.2 - 1.5 * thing.height}
        return words | {"left": max(0.0, 1 - 2 * thing.x), "right": max(0.0, 2 * thing.x - 1)}
    if thing.form == "text":
        return words | ({thing.label: 1.0, "digit": 0.4} if thing.label.isdigit() else {"letter": 0.7})
    words[thing.label or thing.form] = 1.0
    across, down = 2 * thing.x - 1, 2 * thing.y - 1
    return words | {
        "left": max(0.0, -across) * 1.2,
        "right": max(0.0, across) * 1.2,
        "above": max(0.0, -down) * 1.2,
        "below": max(0.0, down) * 1.2,
    }


def _strength(thing: Thing) -> np.ndarray:
    """[64]: 1 at the patch that holds the anchor (shared between neighbours), weaker on the rest of the thing."""
    if thing.label and thing.form != "text":  # easy-VQA: the outline is not known exactly
        return _centre_weights(thing.x, thing.y)
    pixels = np.asarray(mask(thing, _MASK_SIDE), np.float32) / 255
    step = _MASK_SIDE // GRID
    cover = pixels.reshape(GRID, step, GRID, step).mean((1, 3)).reshape(-1)
    body = _BODY if thing.form != "text" else 0.7
    return np.maximum(body * np.minimum(1, 2.5 * cover), _centre_weights(*_anchor(thing)))


def _centre_weights(x: float, y: float) -> np.ndarray:
    """[64]: a point shared bilinearly between the patch centres around it; sums to one."""
    axis = np.arange(GRID) + 0.5
    along_x, along_y = (np.maximum(0, 1 - abs(np.clip(v * GRID, 0.5, GRID - 0.5) - axis)) for v in (x, y))
    return np.outer(along_y, along_x).reshape(-1).astype(np.float32)
