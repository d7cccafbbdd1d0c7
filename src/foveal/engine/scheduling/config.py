"""What the scheduler may spend per step and in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foveal.core.errors import ConfigurationError
from foveal.core.priority import AGEING_S

__all__ = ["SchedulerConfig"]


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Validated once, on construction; raises ConfigurationError."""

    num_blocks: int
    """KV blocks in the pool, without the runner's dummy block."""
    block_size: int = 16
    """Tokens per KV block."""
    max_model_len: int = 4096
    """Longest prompt plus output, tokens."""
    max_num_batched_tokens: int = 2048
    """Token budget of one step, prefill and decode together. Only an atomic image span may exceed it."""
    max_num_seqs: int = 64
    """Most sequences that run at once; an n-choice request counts n."""
    encoder_budget_tokens: int = 8192
    """Patches encoded per step. A larger image is encoded alone."""
    feature_cache_bytes: int = 256 * 2**20
    """Encoder outputs kept. A larger image is admitted while nothing else is pinned, and evicted afterwards."""
    eos_token_ids: tuple[int, ...] = ()
    atomic_image_spans: bool = False
    """The model attends in both directions inside an image span, so a span is never cut."""
    enable_prefix_caching: bool = True
    batching: Literal["continuous", "static"] = "continuous"
    """"static" forms a batch only when nothing runs: the baseline to compare with."""
    kv_cache: bool = True
    """False recomputes the whole sequence for every token: the baseline to compare with."""
    max_waiting: int = 1024
    """Queue limit; beyond it `add` raises OverloadedError."""
    retry_after_s: float = 1.0
    """What OverloadedError tells the client to wait."""
    ageing_s: float = AGEING_S
    """A waiting request moves up one class for each such period."""
    watermark: float = 0.01
    """Fraction of the pool kept free when a request joins running ones, so that they can grow."""

    def __post_init__(self) -> None:
        for name in (
            "num_blocks",
            "block_size",
            "max_num_batched_tokens",
            "max_num_seqs",
            "encoder_budget_tokens",
            "max_waiting",
        ):
            value = getattr(self, name)
            if value < 1:
                raise ConfigurationError(f"{name} is {value}; it must be at least 1. Raise it.")
        if self.max_model_len < 2:
            raise ConfigurationError(
                f"max_model_len is {self.max_model_len}; one prompt and one output token need 2. Raise --max-model-len."
            )
        if self.feature_cache_bytes < 0:
            raise ConfigurationError(f"feature_cache_bytes is {self.feature_cache_bytes}; it must be at least 0.")
        if self.batching not in ("continuous", "static"):
            raise ConfigurationError(f"batching is {self.batching!r}; it must be 'continuous' or 'static'.")
        if self.ageing_s <= 0 or self.retry_after_s < 0:
            raise ConfigurationError(
                f"ageing_s is {self.ageing_s} and retry_after_s {self.retry_after_s}; "
                "the first must be above 0 s and the second at least 0 s."
            )
        if not 0 <= self.watermark < 1:
            raise ConfigurationError(f"watermark is {self.watermark}; it is a fraction of the pool in [0, 1).")

    @property
    def pool_tokens(self) -> int:
        """Tokens whose KV the pool holds."""
        return self.num_blocks * self.block_size

    @property
    def context_limit(self) -> int:
        """Longest sequence that can be served, tokens: bounded by the model and by the pool."""
        return min(self.max_model_len, self.pool_tokens)

    @property
    def uses_prefix_cache(self) -> bool:
        """Without a KV cache there is nothing to share."""
        return self.enable_prefix_caching and self.kv_cache
