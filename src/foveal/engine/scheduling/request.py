"""A request as the scheduler sees it: ids, lengths and counters; no tensors, no text."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from foveal.core.image_span import ImageSpan
from foveal.core.priority import Priority
from foveal.core.sampling_params import SamplingParams

__all__ = ["FinishReason", "ImageRef", "Request", "RequestStatus"]


class RequestStatus(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"  # waiting again; its KV blocks were given away
    FINISHED = "finished"


class FinishReason(enum.StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of a request. Two requests with the same `content_hash` share its features."""

    content_hash: bytes
    num_tokens: int
    """Placeholder tokens of the whole image, over all of its spans."""
    feature_bytes: int
    """Size of its encoder output."""
    encode_tokens: int
    """What encoding it takes from the encoder budget (patches before merging)."""


@dataclass(slots=True, eq=False)
class Request:
    """One generation of one sequence; `n > 1` is several of these that share the prompt's blocks.

    Invariant while running: KV for positions [0, num_computed_tokens) is in `block_table`.
    """

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams
    arrival_s: float
    priority: Priority = Priority.P1
    deadline_s: float | None = None
    """Absolute time after which the request is ended with TIMEOUT."""
    images: tuple[ImageRef, ...] = ()
    spans: tuple[ImageSpan, ...] = ()
    """Sorted by offset, not overlapping."""
    cache_salt: bytes = b""
    """Mixed into prefix keys: requests with different salts never share blocks."""
    index: int = 0
    """Which of the `n` choices this is."""
    group_id: str = ""
    """Id of the request as its user knows it; equals request_id for index 0."""

    status: RequestStatus = RequestStatus.WAITING
    output_token_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    """Tokens of the prompt found in the prefix cache at first admission."""
    num_preemptions: int = 0
    block_table: list[int] = field(default_factory=list)
    scheduled_s: float | None = None
    """When it first left the queue."""
    first_token_s: float | None = None
    """When its first output token was committed; a forked choice has its parent's."""
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None

    # The scheduler's own bookkeeping; nobody else writes it.
    fanout: int = 1
    """Choices this request stands for: sampling.n until its prompt is complete and the others are forked, then 1."""
    number: int = 0
    """Order of adding; breaks ties between equal arrival times."""
    rank: tuple[int, float, int] = (0, 0.0, 0)
    """(effective priority at admission, arrival_s, number): order among running requests, lowest first."""
    block_keys: list[bytes] = field(default_factory=list)
    """Prefix keys of its first full blocks, as far as they were needed; outlive a preemption."""
    num_registered_blocks: int = 0
    """Blocks of `block_table` already offered to the prefix cache."""

    def __post_init__(self) -> None:
        if not self.group_id:
            self.group_id = self.request_id

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        """Prompt and output so far."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    def token_at(self, position: int) -> int:
        """Token id at a position of prompt followed by output."""
        behind = position - len(self.prompt_token_ids)
        return self.prompt_token_ids[position] if behind < 0 else self.output_token_ids[behind]

    def token_slice(self, start: int, end: int) -> list[int]:
        """Token ids at positions [start, end) of prompt followed by output."""
        split = len(self.prompt_token_ids)
        if end <= split:
            return self.prompt_token_ids[start:end]
        if start >= split:
            return self.output_token_ids[start - split : end - split]
        return self.prompt_token_ids[start:] + self.output_token_ids[: end - split]
