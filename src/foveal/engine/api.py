"""The seam between front ends (HTTP server, CLI, offline LLM) and the engine. Torch-free."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from foveal.core.priority import Priority
from foveal.core.sampling_params import SamplingParams
from foveal.engine.outputs import RequestOutput
from foveal.protocol.model_costs import ModelCosts

__all__ = ["EngineClient", "EngineStats", "GenerationRequest", "ModelCard"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Exactly one of `messages`, `prompt` and `prompt_token_ids` is set.

    `messages` are chat messages whose content is a string or a list of {"type": "text", "text": str} and
    {"type": "image"} parts; the k-th image part over all messages is `images[k]`: encoded bytes of a picture file.
    """

    request_id: str
    sampling: SamplingParams
    messages: Sequence[dict[str, Any]] | None = None
    prompt: str | None = None
    prompt_token_ids: Sequence[int] | None = None
    images: Sequence[bytes] = ()
    image_details: Sequence[str] = ()
    """Per image "auto", "low" or "high": a pixel budget; empty means auto for all."""
    priority: Priority = Priority.P1
    timeout_s: float | None = None
    cache_salt: str = ""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    truncate_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What /v1/models says."""

    id: str
    root: str
    max_model_len: int
    supports_images: bool
    created_s: int
    costs: ModelCosts | None = None
    """For gateways, which price a request before it is decoded."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Gauges now, counters since the start of the process."""

    num_running: int = 0
    num_waiting: int = 0
    kv_blocks_total: int = 0
    kv_blocks_used: int = 0
    prefix_cache_queries: int = 0
    """Prompt tokens looked up."""
    prefix_cache_hits: int = 0
    """Prompt tokens found."""
    feature_cache_queries: int = 0
    feature_cache_hits: int = 0
    feature_cache_bytes: int = 0
    num_preemptions: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    encoded_images: int = 0
    cpu_s: float = 0.0
    """Processor time of the engine process, all its threads."""
    max_num_seqs: int = 0
    """Sequences that may run at once now."""
    latency_correction: float = 1.0
    """Step times over what the calibration predicts."""
    refused_late: int = 0
    """Requests refused because their first token would have come too late."""
    memory_used_bytes: int = 0
    """Where the least is left: machine, cgroup or --memory-limit-mib."""
    memory_limit_bytes: int = 0
    refused_memory: int = 0
    """Requests refused because memory was short."""
    memory_shrink_features: int = 0
    memory_drop_prefixes: int = 0
    memory_fewer_sequences: int = 0
    memory_refuse: int = 0
    memory_accept: int = 0
    memory_more_sequences: int = 0
    memory_grow_features: int = 0
    spec_rounds: int = 0
    """Verifications of drafts."""
    spec_drafted_grammar: int = 0
    spec_drafted_ngram: int = 0
    spec_drafted_draft: int = 0
    spec_accepted_grammar: int = 0
    spec_accepted_ngram: int = 0
    spec_accepted_draft: int = 0

    @property
    def spec_mean_accepted_length(self) -> float:
        """Tokens that a verification yields, the target's own included; 0.0 before the first."""
        accepted = self.spec_accepted_grammar + self.spec_accepted_ngram + self.spec_accepted_draft
        return 1.0 + accepted / self.spec_rounds if self.spec_rounds else 0.0


class EngineClient(Protocol):
    """An engine that may run in another process. Never blocks the event loop."""

    @property
    def model(self) -> ModelCard: ...

    @property
    def is_ready(self) -> bool:
        """Loaded and warmed up, alive, and not draining."""

    @property
    def num_in_flight(self) -> int: ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        """Stream events. Closing the iterator early aborts the request and frees its blocks.

        Raises RequestError before the first event if the request cannot be served; EngineDeadError at any point if the
        engine process died. Every request ends in exactly one of: a finished event, an error, an abort.
        """

    def stats(self) -> EngineStats: ...

    def tokenize(self, text: str) -> list[int]: ...

    def token_text(self, token_id: int) -> str:
        """The text of one token, for logprobs; may be a replacement character."""
