"""Lessons as batches: packed rows, the places where something is taught, and the words over which it is compared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foveal.demo.draft.lessons import SeenRow
from foveal.demo.draft.writing import WrittenText
from foveal.demo.training.joint import Parts, input_embeddings
from foveal.demo.training.packing import Row, collate

__all__ = ["Classroom", "Lesson"]


@dataclass(frozen=True)
class Lesson:
    """x [rows, length, hidden] and its packing; n taught places (offsets into rows x length) with the target's view."""

    x: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    places: torch.Tensor  # [n]
    states: torch.Tensor  # fp32 [n, hidden]: the target's
    likely: torch.Tensor  # int32 [n, LIKELY]
    weights: torch.Tensor  # [n]

    def states_of(self, model: Any) -> torch.Tensor:
        """Final states [rows * length, hidden] of a Llama under this packing."""
        states: torch.Tensor = model.model(
            inputs_embeds=self.x, attention_mask=self.mask, position_ids=self.positions, use_cache=False
        ).last_hidden_state
        return states.flatten(0, 1)


class Classroom:
    """Draws lessons of one worker: `picture_rows` rows of questions and `text_rows` rows full of texts.

    Of a text row `text_places` places are taught, because the head costs more than the draft's layers. Rows and texts
    are drawn in shuffled rounds.
    """

    def __init__(
        self,
        parts: Parts,
        rows: Sequence[SeenRow],
        texts: Sequence[WrittenText],
        rng: random.Random,
        *,
        picture_rows: int = 1,
        text_rows: int = 1,
        length: int = 288,
        text_places: int = 128,
        picture_weight: float = 2.0,
    ) -> None:
        self._parts, self._rng, self._length = parts, rng, length
        self._rows, self._texts = rows, texts
        self._row_deck: list[int] = []
        self._text_deck: list[int] = []
        self._picture_rows, self._text_rows = picture_rows, text_rows
        self._text_places, self._picture_weight = text_places, picture_weight

    def vocabulary(self) -> torch.Tensor:
        """Token ids that the target finds likely anywhere in the lessons, ascending."""
        return torch.cat([item.likely.flatten() for item in (*self._rows, *self._texts)]).unique().long()

    def lesson(self) -> Lesson:
        seen = [
            self._rows[self._draw(self._row_deck, len(self._rows))]
            for _ in range(self._picture_rows if self._rows else 0)
        ]
        packed = [self._text_row() for _ in range(self._text_rows if self._texts else 0)]
        batch = collate([*(item.row for item in seen), *packed], self._length, self._parts.pad)
        places, states, likely = [batch.answer_offsets], [item.states for item in seen], [item.likely for item in seen]
        chosen_texts = [self._taught(offset, number) for offset, number in batch.texts]
        for text_places, text_states, text_likely in chosen_texts:
            places.append(text_places)
            states.append(text_states)
            likely.append(text_likely)
        weights = torch.ones(sum(map(len, places)))
        weights[: len(batch.answer_offsets)] = self._picture_weight
        with torch.no_grad():
            x = input_embeddings(self._parts, batch, self._parts.features)
        return Lesson(
            x, batch.positions, batch.mask, torch.cat(places), torch.cat(states).float(), torch.cat(likely), weights
        )

    def _text_row(self) -> Row:
        row = Row()
        while True:
            number = self._draw(self._text_deck, len(self._texts))
            ids = self._texts[number].ids[: self._length]
            if row.ids and len(row.ids) + len(ids) > self._length:
                self._text_deck.append(number)
                return row
            row.add_text(number, ids)

    def _taught(self, offset: int, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        text = self._texts[number]
        last = min(len(text.states), self._length - 1 - text.first)
        share = self._text_places * len(text.ids) / self._length
        chosen = torch.tensor(self._rng.sample(range(last), min(last, max(1, round(share)))), dtype=torch.long)
        return offset + text.first + chosen, text.states[chosen], text.likely[chosen]

    def _draw(self, deck: list[int], size: int) -> int:
        if not deck:
            deck += range(size)
            self._rng.shuffle(deck)
        return deck.pop()
