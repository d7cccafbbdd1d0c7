"""Hands out a step's time to prompts, so that decoding requests keep their pace and no prompt starves."""

from __future__ import annotations

from collections.abc import Iterable

from foveal.engine.scheduling.pacing.prompt_share import PromptShare
from foveal.planning.latency.step_work import StepWork

__all__ = ["FORCED_AFTER", "FORCED_TOKENS", "StepPace"]

FORCED_AFTER = 8
"""Steps in a row that gave nothing to waiting prompts; the next one gives something whatever it takes."""

FORCED_TOKENS = 32


class StepPace:
    """One step at a time: `begin`, `limit`, then `chunk`, `image`, `take` as the planner goes, then `end`.

    A step in which nothing decodes is not limited: nobody is kept waiting for the next token.
    """

    def __init__(self, share: PromptShare) -> None:
        self._share = share
        self._work = StepWork()
        self._limited = False
        self._forced = False
        self._refused = False
        self._given = 0
        self._fruitless = 0

    @property
    def forced(self) -> bool:
        """This step must give prompts something."""
        return self._forced

    @property
    def limited(self) -> bool:
        """Requests decode in this step."""
        return self._limited

    def begin(self) -> None:
        """A new step; nothing is limited until it is known who decodes."""
        self._limited = False

    def limit(self, decode_rows: Iterable[tuple[int, int, int]]) -> None:
        """Rows of decoding requests as (start, tokens, logits rows): what comes from here on is limited."""
        self._work = StepWork.of_rows(decode_rows)
        self._limited = self._work.tokens > 0
        self._forced = self._fruitless >= FORCED_AFTER
        self._refused = False
        self._given = 0

    def chunk(self, start: int, most: int) -> int:
        """Tokens of a prompt from `start` that may join this step, at most `most`."""
        if not self._limited or most <= 0:
            return max(0, most)
        found = self._share.longest_chunk(self._work, start, most)
        if self._forced:
            found = max(found, min(most, FORCED_TOKENS - self._given))
        self._refused |= found <= 0
        return max(0, found)

    def image(self, start: int, patches: int) -> bool:
        """Whether to encode an image in this step, for a prompt that is computed from `start` on."""
        if not self._limited or self._share.image_fits(self._work, start, patches):
            return True
        # An image cannot be cut; what never fits goes alone, now and then.
        allowed = self._forced and not self._work.images
        self._refused |= not allowed
        return allowed

    def refuse(self) -> None:
        """The planner found no use for a chunk that is shorter than it needs."""
        self._refused = True

    def take_image(self, patches: int) -> None:
        self._work = self._work.with_images((patches,))

    def take(self, start: int, num_tokens: int, samples: int) -> None:
        """A chunk was scheduled."""
        self._work = self._work.with_row(start, num_tokens, samples)
        self._given += num_tokens

    def end(self) -> None:
        if self._given or not self._refused:
            self._fruitless = 0
        else:
            self._fruitless += 1

    def observe(self, work: StepWork, seconds: float, encode_s: float) -> None:
        """What the last step took."""
        self._share.observe(work, seconds, encode_s)
