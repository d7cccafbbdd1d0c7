"""Write a complete checkpoint directory of a compressed model: weights, configuration, processor and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from foveal.compression.formats.checkpoint_plan import CheckpointPlan, SourceCheckpoint
from foveal.compression.formats.companions import copy_companions
from foveal.compression.formats.registry import DEFAULT_FORMAT, format_named
from foveal.compression.formats.shards import DEFAULT_SHARD_BYTES, clear_shards, write_shards
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["KeptDType", "write_checkpoint"]

KeptDType = Literal["float16", "bfloat16", "float32"]


def write_checkpoint(
    source_dir: str | Path,
    out_dir: str | Path,
    quantised: Mapping[str, QuantisedWeight],
    schemes: Mapping[str, LinearScheme],
    replaced: Mapping[str, torch.Tensor] = MappingProxyType({}),
    format: str = DEFAULT_FORMAT,  # noqa: A002 - the option's name
    kept_dtype: KeptDType | None = None,
    *,
    static_inputs: Mapping[str, StaticInput] = MappingProxyType({}),
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> list[Path]:
    """Write `out_dir`, loadable by `load_model`; the same arguments give the same bytes. Returns the files.

    `quantised`, `schemes` and `static_inputs` name modules of the loaded model, `replaced` its tensors (folded norms).
    All other tensors are copied bit by bit, or as `kept_dtype`; replaced ones take the type of what they replace. Of a
    tied pair either name will do. config.json is written last: a directory without it is unfinished and may be given
    again. Raises ConfigurationError for what the format cannot hold, before anything is written, and OSError.
    """
    source, out = SourceCheckpoint(Path(source_dir)), Path(out_dir)
    plan = CheckpointPlan.make(source, format_named(format), quantised, schemes, replaced, static_inputs)
    if (out / "config.json").exists():
        raise ConfigurationError(f"{out} holds a checkpoint already. Give another directory, or remove it.")
    dtype = None if kept_dtype is None else getattr(torch, kept_dtype)
    out.mkdir(parents=True, exist_ok=True)
    clear_shards(out)
    files = write_shards(out, _tensors(source, plan, dtype), max_shard_bytes=max_shard_bytes)
    files += copy_companions(source.directory, out)
    config = _with_dtype(source.config_values, kept_dtype)
    if kept_dtype is not None and "torch_dtype" not in config:
        config["dtype"] = kept_dtype
    config["quantization_config"] = plan.format.config(plan.request)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return [*files, out / "config.json"]


def _tensors(
    source: SourceCheckpoint, plan: CheckpointPlan, dtype: torch.dtype | None
) -> Iterator[tuple[str, torch.Tensor]]:
    for stored in source.files:
        prefix = stored.removesuffix(".weight")
        if prefix != stored and prefix in plan.items:
            item = plan.items[prefix]
            for suffix, tensor in sorted(plan.format.tensors(item).items()):
                yield f"{prefix}.{suffix}", tensor
            if prefix in plan.twins:
                for suffix, tensor in sorted(plan.format.twin_tensors(item).items()):
                    yield f"{plan.twins[prefix]}.{suffix}", tensor
            continue
        tensor = source.files.read(stored)
        if stored in plan.replaced:
            tensor = _cast(stored, plan.replaced[stored].detach().cpu(), tensor.dtype)
        yield stored, tensor if dtype is None else _cast(stored, tensor, dtype)


def _cast(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not tensor.is_floating_point() or tensor.dtype == dtype:
        return tensor
    cast = tensor.to(dtype)
    if not torch.isfinite(cast).all() and torch.isfinite(tensor).all():
        raise ConfigurationError(
            f"{name} reaches {tensor.abs().max():.3g}; {dtype} ends at {torch.finfo(dtype).max:.3g}. "
            "Use --kept-dtype bfloat16 or float32."
        )
    return cast


def _with_dtype(values: Any, dtype: str | None) -> Any:
    """config.json's values, with every type that it names (also those of tower and text model) set to `dtype`."""
    if not isinstance(values, dict):
        return values
    copied = {key: _with_dtype(value, dtype) for key, value in values.items()}
    for key in ("dtype", "torch_dtype"):
        if dtype is not None and isinstance(copied.get(key), str):
            copied[key] = dtype
    return copied
