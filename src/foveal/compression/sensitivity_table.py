"""What quantising each decision group costs the answers: the measured table, as data. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foveal.compression.budget import Option
from foveal.compression.components import Component
from foveal.compression.groups import ModelLayout
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import parse_linear

__all__ = ["KEEP", "Measurement", "SensitivityTable", "damage_of"]

KEEP = "keep"
"""The label of the option that leaves a group in 16 bits: no damage."""

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """One group under one scheme, everything else untouched."""

    group: str
    component: Component
    layer: int | None
    scheme: str
    kl: float
    """KL(original || quantised) of next-token distributions over the answers about pictures, nats per token."""
    text_kl: float
    """The same over passages and questions without a picture."""
    dependence: float
    """KL(right picture || other picture) of the quantised model, nats per token."""
    damage: float
    """`damage_of` the three."""
    seconds: float


@dataclass(frozen=True, slots=True)
class SensitivityTable:
    """All measurements of one model on one set of question-picture pairs."""

    source_digest: str
    samples_digest: str
    pairs: int
    answer_tokens: int
    base_dependence: float
    """KL(right picture || other picture) of the original model; 0 for a model that reads text only."""
    measurements: tuple[Measurement, ...]
    seconds: float

    def options_for(self, layout: ModelLayout) -> list[list[Option]]:
        """For each group of the model the options to choose from: every measured scheme, and to keep it.

        Raises ConfigurationError if the table was measured on another model.
        """
        found: dict[str, list[Measurement]] = {}
        for one in self.measurements:
            found.setdefault(one.group, []).append(one)
        strange = set(found) - {group.name for group in layout.groups}
        if strange:
            raise ConfigurationError(
                f"the sensitivity table has {sorted(strange)[0]} and {len(strange) - 1} more groups that this model does "
                "not have. Measure this model."
            )
        return [
            [
                *(
                    Option(group.stored_bytes(parse_linear(one.scheme)), one.damage, one.scheme)
                    for one in found.get(group.name, ())
                ),
                Option(group.stored_bytes(None), 0.0, KEEP),
            ]
            for group in layout.groups
        ]

    def worst(self, count: int) -> Sequence[Measurement]:
        """The most harmful measurements, worst first."""
        return sorted(self.measurements, key=lambda one: -one.damage)[:count]

    def to_dict(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION} | asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SensitivityTable:
        """Raises ConfigurationError for another version or a damaged table."""
        try:
            if values["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"version {values['schema_version']}, this is version {SCHEMA_VERSION}")
            rows = tuple(Measurement(**row) for row in values["measurements"])
            fields = {name: value for name, value in values.items() if name not in ("schema_version", "measurements")}
            return cls(measurements=rows, **fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"not a readable sensitivity table ({error}). Delete it and measure again."
            ) from error

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> SensitivityTable:
        """Raises ConfigurationError."""
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"sensitivity table {path} cannot be read ({error}). Measure again.") from error


def damage_of(kl: float, text_kl: float, dependence: float, base_dependence: float) -> float:
    """How bad a change is, in nats per token: to right answers, to ordinary language, and to looking at the picture.

    The last term is base_dependence x b^2, where b is the share of the picture's influence that was lost: nothing for
    a small wobble, as KL itself is quadratic, and the whole base_dependence for a model that has gone blind, however
    well it still guesses answers.
    """
    lost = max(0.0, 1.0 - dependence / base_dependence) if base_dependence > 0 else 0.0
    return kl + text_kl + base_dependence * lost**2
