"""What was measured of one model: the record that the gate judges, the passport keeps and the report shows.

A record stands alone: per-item results are kept, so that two models measured on the same items can be compared pair by
pair later, without running either again. Parts that were not measured are None; the gate says so instead of guessing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from foveal.artifacts.storage import explain_storage_errors
from foveal.core.errors import ConfigurationError

__all__ = [
    "Agreement",
    "Captions",
    "Divergence",
    "Evaluation",
    "ImageSensitivity",
    "MeasuredModel",
    "Perplexity",
    "PictureDependence",
    "SampleAnswer",
    "Speed",
    "TaskResult",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """Which weights were measured: `digest` is artifacts' source digest of the directory."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """exp(mean negative log-likelihood per token) on English text; None stands for a value that is not finite.

    `window_nll` holds the summed negative log-likelihood (nats) of each window and `window_tokens` its tokens, so that
    two models can be compared window by window. Both may be empty; then there is no interval.
    """

    value: float | None
    tokens: int
    window_nll: tuple[float, ...] = ()
    window_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _finite_or_none(self, "value")
        if not all(map(math.isfinite, self.window_nll)):
            object.__setattr__(self, "window_nll", ())
            object.__setattr__(self, "window_tokens", ())
        if len(self.window_nll) != len(self.window_tokens):
            raise ValueError(
                f"{len(self.window_nll)} window sums for {len(self.window_tokens)} window lengths; give one of each"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One task: `per_item[i]` tells whether question i was answered correctly.

    `items_digest` names the questions and their order; results are paired only when it is equal.
    """

    per_item: tuple[bool, ...]
    items_digest: str = ""

    @property
    def questions(self) -> int:
        return len(self.per_item)

    @property
    def correct(self) -> int:
        return sum(self.per_item)

    @property
    def accuracy(self) -> float:
        """Share of questions answered correctly, 0..1; 0.0 where none was asked."""
        return self.correct / self.questions if self.per_item else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """Corpus BLEU-4 (0..100) over `items` captions."""

    bleu4: float
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """With the base: share (0..1) of greedy answers that are equal, and of positions with the same most likely token."""

    greedy_exact: float
    top1: float
    items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """KL(base || candidate) of the next-token distribution, in nats per answer position; None: not finite."""

    mean: float | None
    p99: float | None
    positions: int = 0

    def __post_init__(self) -> None:
        _finite_or_none(self, "mean", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureDependence:
    """How much changes when the picture is replaced and the question stays.

    `answers`: share (0..1) of greedy answers that change. `kl`: mean KL (nats per position) between the next-token
    distributions with and without the right picture; None: not finite. `accuracy`: share still answered correctly
    without it. `changed` tells per item whether the answer changed; it may be empty, then intervals are wider.
    """

    answers: float
    kl: float | None
    accuracy: float | None = None
    changed: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        _finite_or_none(self, "kl")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSensitivity:
    """Does the answer depend on the picture? The picture is swapped for another item's, blanked, or its pixels shuffled."""

    swap: PictureDependence
    blank: PictureDependence
    shuffled: PictureDependence
    items: int
    accuracy: float | None = None
    """Share of the same items answered correctly with the right picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Batch 1. Milliseconds to encode one picture; prompt tokens per second; generated tokens per second."""

    encode_ms: float
    prefill_tok_s: float
    decode_tok_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleAnswer:
    """One question shown side by side. `candidate` is the measured model's answer, `base` the base's if known."""

    task: str
    question: str
    reference: str
    candidate: str
    base: str | None = None
    image_png_base64: str = ""
    """The picture as PNG, base64; empty for a question about text only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything measured of one model."""

    model: MeasuredModel
    suite: str
    """Which tasks, how many items and which seed, as one line; only evaluations of the same suite are comparable."""
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    perplexity: Perplexity | None = None
    captions: Captions | None = None
    agreement: Agreement | None = None
    kl: Divergence | None = None
    image_sensitivity: ImageSensitivity | None = None
    size_bytes: int | None = None
    """All files of the model directory that hold weights."""
    peak_memory_bytes: int | None = None
    speed: Speed | None = None
    machine: str = ""
    run_as: str = ""
    """Decoder and number formats: "native int8 (avx512), KV int8"."""
    samples: tuple[SampleAnswer, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)
    """Part -> why it was left out ("captions": "the model has no vision tower")."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Indented JSON with sorted keys; `from_json` gives an equal record back."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1)

    @classmethod
    def from_json(cls, data: bytes | str, *, origin: str = "the evaluation") -> Evaluation:
        """Raises ConfigurationError, naming `origin`, for anything that is not such a record."""
        try:
            record = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigurationError(
                f"{origin} is not an evaluation record: {error}. Write one with `foveal evaluate MODEL --output FILE`"
            ) from error
        if record.schema_version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"{origin} has schema version {record.schema_version}; this version reads {SCHEMA_VERSION}. "
                "Evaluate the model again"
            )
        return record

    def for_passport(self) -> dict[str, Any]:
        """As plain values without sample answers (pictures are large) and text windows."""
        brief = replace(self, samples=())
        if brief.perplexity is not None:
            brief = replace(brief, perplexity=replace(brief.perplexity, window_nll=(), window_tokens=()))
        plain: dict[str, Any] = msgspec.to_builtins(brief)
        return plain

    def write(self, path: Path) -> None:
        """Raises StorageError."""
        with explain_storage_errors(path):
            path.write_bytes(self.to_json() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Raises ConfigurationError when the file cannot be read or holds something else."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        return cls.from_json(data, origin=str(path))


def _finite_or_none(record: object, *names: str) -> None:
    """JSON has no NaN: a value that is not finite is None, and the gate rejects it."""
    for name in names:
        value = getattr(record, name)
        if value is not None and not math.isfinite(value):
            object.__setattr__(record, name, None)
