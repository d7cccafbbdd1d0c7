"""What the engine says about a request, step by step. Torch-free: the server builds responses from these."""

from __future__ import annotations

from dataclasses import dataclass, field

from foveal.engine.scheduling.request import FinishReason

__all__ = ["ChoiceDelta", "CompletionOutput", "RequestMetrics", "RequestOutput", "TokenLogprob", "Usage"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The chosen token and its most likely alternatives at one position (natural log)."""

    token_id: int
    logprob: float
    rank: int
    """1 is the most likely token."""
    top: tuple[tuple[int, float], ...] = ()
    """(token id, log-probability), most likely first."""


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    cached_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    """Over all choices."""


@dataclass(frozen=True, slots=True)
class RequestMetrics:
    """Seconds, from arrival at the engine's front end. The TTFT waterfall; 0.0 where a stage did not run."""

    preprocess_s: float = 0.0
    queue_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    ttft_s: float = 0.0
    e2e_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """New text of one choice since the last event."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One per token id, if the request asked for them. Tokens follow the text: their text may still be held back."""
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or stop token id that ended it, if one did."""


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One event of a stream. The last one has `finished` and every choice has had its finish_reason."""

    request_id: str
    deltas: tuple[ChoiceDelta, ...]
    usage: Usage
    finished: bool = False
    metrics: RequestMetrics = field(default_factory=RequestMetrics)


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """A finished choice, as the offline API returns it."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    stop_reason: str | int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
