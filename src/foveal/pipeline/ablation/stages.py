"""The ladder: each stage is the one before with one thing switched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["Stage", "ladder"]

Attention = Literal["eager", "sdpa"]


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: str
    attention: Attention | None = None
    """transformers' `generate` with this attention, one request after the other; None: our engine."""
    engine: dict[str, Any] = field(default_factory=dict)
    """EngineConfig fields that differ from its defaults."""

    @property
    def model_key(self) -> tuple[str, str]:
        """(decoder, quantize): stages with the same share one loaded model."""
        return self.engine.get("decoder", "auto"), self.engine.get("quantize", "none")


def ladder(concurrency: int, *, speculate: str = "ngram") -> list[Stage]:
    """`speculate` is EngineConfig's. Caches start switched off: what they give is seen where they come in."""
    engine: dict[str, Any] = {
        "decoder": "hf",
        "batching": "static",
        "max_num_seqs": 1,
        "enable_prefix_caching": False,
        "feature_cache_bytes": 0,
    }
    stages = [
        Stage("transformers, eager attention, one by one", attention="eager"),
        Stage("+ flash attention (SDPA)", attention="sdpa"),
        Stage("+ our engine: paged KV cache", engine=engine),
    ]
    steps: Sequence[tuple[str, dict[str, Any]]] = (
        (f"+ static batches of {concurrency}", {"max_num_seqs": concurrency}),
        ("+ continuous batching", {"batching": "continuous"}),
        ("+ fused decoder", {"decoder": "fused"}),
        ("+ native kernels, float32", {"decoder": "native"}),
        ("+ INT8 weights", {"quantize": "int8"}),
        ("+ INT4 weights", {"quantize": "int4"}),
        ("+ INT8 KV cache", {"kv_dtype": "int8"}),
        ("+ prefix cache", {"enable_prefix_caching": True}),
        ("+ image feature cache", {"feature_cache_bytes": 256 << 20}),
        (f"+ speculation ({speculate.partition(':')[0]})", {"speculate": speculate}),
    )
    for name, switched in steps:
        stages.append(replace(stages[-1], name=name, engine=stages[-1].engine | switched))
    return stages
