"""What an engine is started with. Validated once; the same object crosses to the engine process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from foveal.core.errors import ConfigurationError

__all__ = ["Batching", "Decoder", "Dtype", "EngineConfig", "KvDtype", "Quantize"]

Dtype = Literal["auto", "float32", "bfloat16"]
Decoder = Literal["auto", "native", "fused", "hf"]
Quantize = Literal["none", "int8", "int4"]
KvDtype = Literal["auto", "int8"]
Batching = Literal["continuous", "static"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Names follow vLLM's flags where they mean the same. Raises ConfigurationError."""

    model: str
    """Checkpoint directory, or a hub id where there is a hub."""
    served_model_name: str | None = None
    dtype: Dtype = "auto"
    decoder: Decoder = "auto"
    quantize: Quantize = "none"
    """Round what the checkpoint holds in full precision when it loads, for the native kernels."""
    kv_dtype: KvDtype = "auto"
    """"auto" is the model's; "int8" keeps K and V in 8 bits with one scale per token and head (native decoder only)."""
    max_model_len: int | None = None
    """Context length in tokens; None takes the model's."""
    max_num_seqs: int = 64
    """Most sequences that run at the same time."""
    max_num_batched_tokens: int = 512
    """Token budget of one step: prompts are cut into chunks of at most this."""
    block_size: int = 2
    """Tokens per KV block. Small, because what a prefix hit leaves over of a block is recomputed: on a CPU that is the
    whole time to the first token of a repeated picture."""
    num_kv_blocks: int | None = None
    """Size of the KV pool in blocks; None sizes it from memory."""
    memory_utilization: float = 0.6
    """Share of the memory that is free after loading which the KV pool may take."""
    enable_prefix_caching: bool = True
    encoder_budget_tokens: int = 8192
    """Most vision patches that one step encodes."""
    feature_cache_bytes: int = 256 * MIB
    max_waiting: int = 1024
    """Requests queued before new ones are refused with 503."""
    batching: Batching = "continuous"
    """"static" is a baseline to compare with: a batch is admitted only when the last one is done."""
    kv_cache: bool = True
    """False is a baseline to compare with: every step recomputes the whole sequence."""
    num_threads: int | None = None
    preprocess_workers: int = 2
    max_images_per_request: int = 16
    max_image_pixels: int = 40_000_000
    max_pixel_bytes_in_flight: int = 512 * MIB
    """Preprocessed pixels held for requests that have not finished."""
    require_passport: bool = False
    """Refuse a model directory that does not hold what its passport says."""
    require_verdict: bool = False
    """Also refuse one that the quality gate has not accepted. Implies `require_passport`."""
    warmup: bool = True
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        self._at_least("max_num_seqs", self.max_num_seqs, 1)
        self._at_least("max_num_batched_tokens", self.max_num_batched_tokens, 1)
        self._at_least("block_size", self.block_size, 1)
        self._at_least("encoder_budget_tokens", self.encoder_budget_tokens, 1)
        self._at_least("feature_cache_bytes", self.feature_cache_bytes, 0)
        self._at_least("max_waiting", self.max_waiting, 1)
        self._at_least("preprocess_workers", self.preprocess_workers, 1)
        self._at_least("max_images_per_request", self.max_images_per_request, 0)
        self._at_least("max_image_pixels", self.max_image_pixels, 1)
        for name, choice, choices in (
            ("quantize", self.quantize, ("none", "int8", "int4")),
            ("kv_dtype", self.kv_dtype, ("auto", "int8")),
        ):
            if choice not in choices:
                raise ConfigurationError(f"{name} is {choice!r}; it must be one of {', '.join(choices)}")
        for name, value in (
            ("max_model_len", self.max_model_len),
            ("num_kv_blocks", self.num_kv_blocks),
            ("num_threads", self.num_threads),
        ):
            if value is not None:
                self._at_least(name, value, 1)
        if not 0.0 < self.memory_utilization <= 0.95:
            raise ConfigurationError(
                f"memory_utilization is {self.memory_utilization}; it must be above 0 and at most 0.95, because the "
                "operating system and activations need the rest"
            )

    @property
    def model_name(self) -> str:
        """The name clients use: --served-model-name, else the last part of the path."""
        return self.served_model_name or os.path.basename(os.path.normpath(self.model))

    @property
    def threads(self) -> int:
        return self.num_threads or len(os.sched_getaffinity(0))

    @staticmethod
    def _at_least(name: str, value: int, low: int) -> None:
        if value < low:
            raise ConfigurationError(f"{name} is {value}; it must be at least {low}")
