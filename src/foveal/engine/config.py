"""What an engine is started with. Validated once; the same object crosses to the engine process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from foveal.core.errors import ConfigurationError
from foveal.engine.speculate_option import SpeculateOption

__all__ = ["Batching", "Decoder", "Dtype", "EngineConfig", "KvDtype", "Quantize"]

Dtype = Literal["auto", "float32", "bfloat16"]
Decoder = Literal["auto", "native", "fused", "hf"]
Quantize = Literal["none", "float16", "bfloat16", "int8", "int4"]
KvDtype = Literal["auto", "int8"]
Batching = Literal["continuous", "static"]

MIB = 1 << 20
MAX_SPECULATE_TOKENS = 16


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
    memory_limit_mib: int | None = None
    """Most the engine process should take; None leaves it to the cgroup and the machine."""
    memory_guard: bool = True
    """Give up caches, then sequences, then new requests before a limit is reached."""
    enable_prefix_caching: bool = True
    target_tpot_ms: float | None = None
    """Most milliseconds of a step in which requests decode: prompts, pictures and the number of sequences adapt to it."""
    target_ttft_ms: float | None = None
    """Requests whose first token is predicted to come later are refused with 503. Needs a calibration."""
    vision_wait_ms: float = 50.0
    """Most milliseconds that a picture waits for others of its size, where that pays by the calibration; 0 never waits."""
    latency_model: str = "auto"
    """"auto" is what `foveal calibrate` saved for this machine, model and precision, if it did; "none"; or a file."""
    encoder_budget_tokens: int = 8192
    """Most vision patches that one step encodes."""
    feature_cache_bytes: int = 256 * MIB
    max_waiting: int = 1024
    """Requests queued before new ones are refused with 503."""
    batching: Batching = "continuous"
    """"static" is a baseline to compare with: a batch is admitted only when the last one is done."""
    kv_cache: bool = True
    """False is a baseline to compare with: every step recomputes the whole sequence."""
    speculate: str | None = None
    """Who guesses tokens ahead: ngram, grammar, draft:PATH, auto (grammar and ngram), or several with commas."""
    speculate_tokens: int = 8
    """Most tokens that are guessed per request and step; how many adapts between 2 and this."""
    speculate_adaptive: bool = True
    """False is a baseline to compare with: always `speculate_tokens`, whether it pays or not."""
    draft_vocabulary: int | None = 16384
    """Tokens that a draft model can propose, the lowest ids (the most frequent ones); None for all."""
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
            ("quantize", self.quantize, get_args(Quantize)),
            ("kv_dtype", self.kv_dtype, get_args(KvDtype)),
        ):
            if choice not in choices:
                raise ConfigurationError(f"{name} is {choice!r}; it must be one of {', '.join(choices)}")
        for name, value in (
            ("max_model_len", self.max_model_len),
            ("num_kv_blocks", self.num_kv_blocks),
            ("num_threads", self.num_threads),
            ("memory_limit_mib", self.memory_limit_mib),
            ("draft_vocabulary", self.draft_vocabulary),
        ):
            if value is not None:
                self._at_least(name, value, 1)
        for name, milliseconds in (("target_tpot_ms", self.target_tpot_ms), ("target_ttft_ms", self.target_ttft_ms)):
            if milliseconds is not None and not milliseconds > 0:
                raise ConfigurationError(f"{name} is {milliseconds}; it must be above 0")
        if not self.vision_wait_ms >= 0:
            raise ConfigurationError(f"vision_wait_ms is {self.vision_wait_ms}; it must be at least 0")
        self._check_speculation()
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

    def _check_speculation(self) -> None:
        self._at_least("speculate_tokens", self.speculate_tokens, 1)
        if self.speculate_tokens > MAX_SPECULATE_TOKENS:
            raise ConfigurationError(
                f"speculate_tokens is {self.speculate_tokens}; it must be at most {MAX_SPECULATE_TOKENS}: so many guesses "
                "in a row are hardly ever right"
            )
        if self.speculate is None:
            return
        SpeculateOption.parse(self.speculate)
        if not self.kv_cache:
            raise ConfigurationError("--speculate needs the KV cache; leave --no-kv-cache out")

    @staticmethod
    def _at_least(name: str, value: int, low: int) -> None:
        if value < low:
            raise ConfigurationError(f"{name} is {value}; it must be at least {low}")
