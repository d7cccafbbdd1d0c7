"""The passport of an artefact: where it comes from, what was done to every layer, and what it must look like on disk.

The digest covers everything but `evaluation` and `verdict`, which are added later. The digested part holds no time and
no machine, so that the same input, recipe and tools give the same passport.

A digest finds damage and mix-ups. It is not a signature: whoever can write the directory can write a new passport.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from foveal.artifacts.canonical_json import digest_of
from foveal.artifacts.file_digests import FileEntry
from foveal.artifacts.model_files import model_digest

__all__ = [
    "PASSPORT_NAME",
    "SCHEMA_VERSION",
    "UNDIGESTED",
    "Calibration",
    "LinearEntry",
    "Passport",
    "Sizes",
    "Source",
    "passport_digest",
]

PASSPORT_NAME = "passport.json"
SCHEMA_VERSION = 1
UNDIGESTED = ("evaluation", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The model that was compressed; `digest` as in `source_digest`."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`kind` names where the samples came from ("rendered-tasks", "jsonl", "noise"); `unfit` why they should not be used."""

    digest: str
    samples: int
    kind: str
    unfit: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearEntry:
    """One linear layer: either quantised by `method` to `scheme`, or kept, with the reason.

    Losses are mean squared errors of the layer's output on held-out activations; `rtn_loss` is round-to-nearest's at the
    same scheme. `theory_sqnr_db` is what the number format promises for the weight's distribution.
    """

    component: str
    scheme: str | None = None
    method: str | None = None
    bits: int | None = None
    kept_reason: str | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    loss: float | None = None
    rtn_loss: float | None = None
    sqnr_db: float | None = None
    theory_sqnr_db: float | None = None
    note: str | None = None
    """What a reader should know: "group 128 does not divide 576: 64"."""

    def __post_init__(self) -> None:
        if (self.scheme is None) == (self.kept_reason is None):
            raise ValueError(
                f"a linear is either quantised or kept for a reason; this one has scheme={self.scheme!r} and "
                f"kept_reason={self.kept_reason!r}"
            )

    @property
    def quantised(self) -> bool:
        return self.scheme is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Weight bytes on disk, before and after."""

    source_bytes: int
    bytes: int

    @property
    def ratio(self) -> float:
        return self.bytes / self.source_bytes if self.source_bytes else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport:
    """See the module. `files` maps names relative to the directory to what they must be; passport.json is not among them."""

    source: Source
    recipe: dict[str, Any]
    linears: dict[str, LinearEntry]
    sizes: Sizes
    files: dict[str, FileEntry]
    calibration: Calibration | None = None
    tools: dict[str, str] = field(default_factory=dict)
    kind: Literal["quantised", "pruned", "distilled"] = "quantised"
    evaluation: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def quantised_linears(self) -> int:
        return sum(entry.quantised for entry in self.linears.values())

    @property
    def narrowest_bits(self) -> int | None:
        """Fewest bits of any quantised linear; None if nothing is quantised or no entry tells its bits."""
        bits = [entry.bits for entry in self.linears.values() if entry.quantised and entry.bits is not None]
        return min(bits, default=None)

    @property
    def digest(self) -> str:
        return passport_digest(self)

    @property
    def model_digest(self) -> str:
        """What `source_digest` of the artefact's directory gives."""
        return model_digest(self.files)


def passport_digest(passport: Passport) -> str:
    """The digest of everything but the evaluation and the verdict."""
    return digest_of({f.name: getattr(passport, f.name) for f in fields(passport) if f.name not in UNDIGESTED})
