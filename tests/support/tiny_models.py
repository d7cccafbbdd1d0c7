"""Tiny models with requests and what transformers' `generate` answers: the oracle of every parity test."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foveal.models.image_input import PromptInput
from foveal.models.language_model import DecoderKind, TransformersModel
from foveal.models.loading import load_processor
from foveal.models.processing.processor import Processor
from foveal.models.registry import family_of
from support.tiny_checkpoints import build_tiny_checkpoint, tiny_hf_model
from support.tiny_configs import FAMILIES, TEXT_FAMILIES, VISION_FAMILIES

__all__ = [
    "FAMILIES",
    "FUSED_FAMILIES",
    "NATIVE_FAMILIES",
    "NUM_NEW_TOKENS",
    "TEXT_FAMILIES",
    "VISION_FAMILIES",
    "TinyCase",
    "tiny_cases",
    "tiny_checkpoint",
    "tiny_image",
    "tiny_model",
    "tiny_processor",
    "transformers_inputs",
]

FUSED_FAMILIES = tuple(name for name in FAMILIES if name not in {"gemma3", "gpt2"})
# Deepstack adds image features after several layers; the native decoder runs all layers in one call.
NATIVE_FAMILIES = tuple(name for name in FUSED_FAMILIES if name != "qwen3_vl")
NUM_NEW_TOKENS = 16
_IMAGE_SIZES = ((40, 28), (28, 56), (64, 60))
_IMAGE_COUNTS = (1, 0, 2, 3)


@dataclass(frozen=True)
class TinyCase:
    """One request and its greedy continuation by `generate`, NUM_NEW_TOKENS long, end tokens ignored."""

    prompt: PromptInput
    images: tuple[Image.Image, ...]
    text: str
    expected: tuple[int, ...]


@cache
def tiny_checkpoint(family: str) -> Path:
    """A checkpoint directory of `family`, written once per process and removed at its end."""
    directory = tempfile.mkdtemp(prefix=f"foveal-tiny-{family}-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return build_tiny_checkpoint(family, directory)


@cache
def tiny_processor(family: str) -> Processor:
    return load_processor(tiny_checkpoint(family))


def tiny_model(family: str, decoder: DecoderKind = "auto") -> TransformersModel:
    """A fresh model with the checkpoint's weights; tests may break it."""
    return TransformersModel(tiny_hf_model(family), family_of(family), decoder)


def tiny_image(seed: int, size: tuple[int, int] = (40, 28)) -> Image.Image:
    """RGB noise of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@cache
def tiny_cases(family: str) -> tuple[TinyCase, ...]:
    """Requests with 1, 0, 2 and 3 images of different sizes (all 0 for text-only families)."""
    processor = tiny_processor(family)
    model = tiny_hf_model(family)
    cases = []
    for number, wanted in enumerate(_IMAGE_COUNTS):
        count = wanted if family in VISION_FAMILIES else 0
        images = tuple(tiny_image(10 * number + index, _IMAGE_SIZES[index]) for index in range(count))
        parts = [part for index in range(count) for part in ({"type": "text", "text": f"{index}:"}, {"type": "image"})]
        parts.append({"type": "text", "text": f" what is here, {number}?"})
        text = processor.apply_chat_template([{"role": "user", "content": parts}])
        prompt = processor.prepare(text, images)
        cases.append(TinyCase(prompt, images, text, _generate(model, prompt)))
    return tuple(cases)


@torch.inference_mode()
def _generate(model: torch.nn.Module, prompt: PromptInput) -> tuple[int, ...]:
    if hasattr(model.model if hasattr(model, "model") else model, "rope_deltas"):
        model.model.rope_deltas = None  # left over from the request before
    model.generation_config.eos_token_id = None
    inputs = transformers_inputs(model.config.model_type, prompt)
    length = inputs["input_ids"].shape[1]
    output = model.generate(**inputs, do_sample=False, max_new_tokens=NUM_NEW_TOKENS, pad_token_id=0)
    return tuple(output[0, length:].tolist())


def transformers_inputs(model_type: str, prompt: PromptInput) -> dict[str, torch.Tensor]:
    """The request in the form that this family's own processor would give it."""
    inputs = {"input_ids": torch.tensor([prompt.token_ids])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    types = torch.zeros_like(inputs["input_ids"])
    for span in prompt.spans:
        types[0, span.offset : span.offset + span.length] = 1
    if model_type == "gemma3":
        inputs["token_type_ids"] = types
    if not prompt.images:
        return inputs
    names = prompt.images[0].arrays
    arrays = {name: [torch.from_numpy(image.arrays[name]) for image in prompt.images] for name in names}
    if model_type == "llava":
        inputs["pixel_values"] = torch.stack(arrays["pixel_values"])
    elif model_type == "llava_next":
        most = max(len(tiles) for tiles in arrays["pixel_values"])
        padded = [
            torch.cat([tiles, tiles.new_zeros(most - len(tiles), *tiles.shape[1:])]) for tiles in arrays["pixel_values"]
        ]
        inputs |= {"pixel_values": torch.stack(padded), "image_sizes": torch.stack(arrays["image_sizes"])}
    elif model_type in ("qwen2_5_vl", "qwen3_vl"):
        inputs |= {
            "pixel_values": torch.cat(arrays["pixel_values"]),
            "image_grid_thw": torch.stack(arrays["image_grid_thw"]),
            "mm_token_type_ids": types.int(),
        }
    elif model_type in ("idefics3", "smolvlm"):
        inputs |= {name: torch.cat(tensors)[None] for name, tensors in arrays.items()}
    else:
        inputs["pixel_values"] = torch.cat(arrays["pixel_values"])
    return inputs
