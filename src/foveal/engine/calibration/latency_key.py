"""Which calibration belongs to a loaded engine."""

from __future__ import annotations

from importlib.metadata import version

from foveal.artifacts.shape_digest import shape_digest
from foveal.engine.config import EngineConfig
from foveal.models.base import LanguageModel
from foveal.planning.latency.latency_file import LatencyKey, cpu_name

__all__ = ["latency_key"]


def latency_key(config: EngineConfig, model: LanguageModel) -> LatencyKey:
    """`config` as the engine was started, `model` as it was loaded: "auto" is what became of it."""
    dtype = str(model.dtype).removeprefix("torch.")
    return LatencyKey(
        cpu=cpu_name() if model.device.type == "cpu" else str(model.device),
        threads=config.threads,
        model=shape_digest(config.model),
        dtype=dtype,
        decoder=getattr(model, "decoder", "other"),
        quantize=config.quantize,
        kv_dtype=str(getattr(model, "kv_dtype", model.dtype)).removeprefix("torch.")
        if config.kv_dtype == "auto"
        else config.kv_dtype,
        version=version("foveal"),
    )
