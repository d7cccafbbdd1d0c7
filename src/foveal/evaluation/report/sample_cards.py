"""Sample answers for the page: those that differ from the base's first."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from foveal.evaluation.evaluation_result import SampleAnswer

__all__ = ["SampleCard", "sample_cards"]

MOST = 24
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class SampleCard:
    """`picture` is a data URI or ""; `damaged` tells that there was something else than a PNG."""

    task: str
    question: str
    reference: str
    base: str | None
    candidate: str
    picture: str
    damaged: bool

    @property
    def changed(self) -> bool:
        return self.base is not None and self.base.strip() != self.candidate.strip()


def sample_cards(samples: Sequence[SampleAnswer], most: int = MOST) -> list[SampleCard]:
    """At most `most`: what changed comes first, then tasks take turns."""
    cards = [_card(sample) for sample in samples]
    seen: dict[tuple[bool, str], int] = {}
    ranked = []
    for card in cards:
        turn = seen.setdefault((card.changed, card.task), 0)
        seen[(card.changed, card.task)] += 1
        ranked.append((not card.changed, turn, card))
    return [card for _, _, card in sorted(ranked, key=lambda row: row[:2])][:most]


def _card(sample: SampleAnswer) -> SampleCard:
    picture = _data_uri(sample.image_png_base64)
    return SampleCard(
        task=sample.task,
        question=sample.question,
        reference=sample.reference,
        base=sample.base,
        candidate=sample.candidate,
        picture=picture,
        damaged=bool(sample.image_png_base64) and not picture,
    )


def _data_uri(encoded: str) -> str:
    """Only real PNGs get into the page, spelt anew."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return "data:image/png;base64," + base64.b64encode(data).decode() if data.startswith(_PNG) else ""
