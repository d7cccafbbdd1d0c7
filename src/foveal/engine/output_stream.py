"""All choices of one request on their way to the client."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.engine.ipc import AddRequest, TokenEvent
from foveal.engine.outputs import ChoiceDelta, Usage
from foveal.engine.text.choice_stream import ChoiceStream
from foveal.engine.text.token_bytes import TokenBytes

__all__ = ["OutputStream"]


class OutputStream:
    """Turns engine events into text deltas, finds stop strings, keeps the usage."""

    def __init__(self, request: AddRequest, table: TokenBytes, *, continues_text: bool) -> None:
        self._choices = [
            ChoiceStream(index, request.sampling, table, continues_text=continues_text)
            for index in range(request.sampling.n)
        ]
        self._stopped: list[int] = []
        self._prompt_tokens = len(request.token_ids)
        self._image_tokens = sum(image.num_tokens for image in request.images)
        self._cached_tokens = 0

    @property
    def finished(self) -> bool:
        return all(choice.finished for choice in self._choices)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            image_tokens=self._image_tokens,
            completion_tokens=sum(choice.num_tokens for choice in self._choices),
        )

    def push(self, events: Sequence[TokenEvent]) -> tuple[ChoiceDelta, ...]:
        """Deltas in event order. Events of choices that a stop string has ended are dropped."""
        deltas = []
        for event in events:
            self._cached_tokens = max(self._cached_tokens, event.cached_tokens)
            choice = self._choices[event.index]
            delta = choice.append(event.token_ids, event.logprobs, event.finish_reason, event.stop_token_id)
            if delta is None:
                continue
            deltas.append(delta)
            if choice.finished and event.finish_reason is None:
                self._stopped.append(event.index)
        return tuple(deltas)

    def take_stopped(self) -> list[int]:
        """Choices that a stop string ended while the engine still computes them."""
        stopped, self._stopped = self._stopped, []
        return stopped
