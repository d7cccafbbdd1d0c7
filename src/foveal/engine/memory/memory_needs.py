"""What an engine takes beside weights and KV pool, and whether a configuration can fit at all."""

from __future__ import annotations

from pathlib import Path

import torch

from foveal.artifacts.model_files import weight_bytes
from foveal.core.errors import ArtifactError, ConfigurationError
from foveal.engine.config import EngineConfig
from foveal.engine.memory.memory_reading import MemoryReading
from foveal.models.base import LanguageModel

__all__ = ["check_pool", "check_weights", "encoder_patch_bytes", "working_bytes"]

_HIDDEN_COPIES = 8
"""Tensors of a layer's width that live at once: residual, norm, q, k, v, attention, output and one to spare."""

_INNER_COPIES = 2
"""Of the feed-forward's width: before and after the activation."""


def check_weights(config: EngineConfig, reading: MemoryReading) -> None:
    """Before anything is loaded. Raises ConfigurationError if the weights alone do not fit. A hub id is not checked."""
    directory = Path(config.model).expanduser()
    if not directory.is_dir():
        return
    try:
        stored = weight_bytes(directory)
    except ArtifactError:
        return  # the loader says what is wrong with it
    if stored > reading.available_bytes:
        raise ConfigurationError(
            f"the weights of {config.model_name} are {stored:,} bytes; {reading.source} leaves {reading.available_bytes:,} of "
            f"{reading.limit_bytes:,}. Raise the limit, end other programs, or make the model smaller with `foveal compress`."
        )


def encoder_patch_bytes(model: LanguageModel) -> int:
    """Most that encoding takes per patch: activations of one layer of the tower. 0 for a text model."""
    config = getattr(getattr(model, "hf_model", None), "config", None)
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return 0
    hidden = int(getattr(vision, "hidden_size", None) or getattr(vision, "embed_dim", 0))
    inner = int(getattr(vision, "intermediate_size", None) or 4 * hidden)
    return int(model.dtype.itemsize * (_HIDDEN_COPIES * hidden + _INNER_COPIES * inner))


def working_bytes(config: EngineConfig, model: LanguageModel) -> int:
    """Peak beside weights and KV pool: the largest encoder batch, one step's activations and logits, features kept."""
    spec = model.spec
    encoder = config.encoder_budget_tokens * encoder_patch_bytes(model)
    step = config.max_num_batched_tokens * spec.hidden_size * 2 * _HIDDEN_COPIES * 4
    logits = 2 * config.max_num_seqs * spec.vocab_size * 4
    features = config.feature_cache_bytes if spec.supports_images else 0
    return encoder + step + logits + features


def check_pool(
    config: EngineConfig, pool_bytes: int, needed_bytes: int, reading: MemoryReading, kv_dtype: torch.dtype
) -> None:
    """After loading, before the pool is allocated. Raises ConfigurationError if it and `needed_bytes` do not fit."""
    if pool_bytes + needed_bytes <= reading.available_bytes:
        return
    smaller = "" if kv_dtype == torch.int8 else ", take --kv-dtype int8"
    raise ConfigurationError(
        f"the KV pool takes {pool_bytes:,} bytes, and pictures, activations and caches up to {needed_bytes:,} more; with the "
        f"weights loaded, {reading.source} leaves {reading.available_bytes:,} of {reading.limit_bytes:,}. Lower "
        f"--num-kv-blocks, --max-num-seqs, --encoder-budget-tokens or --feature-cache-mib{smaller}, or raise the limit."
    )
