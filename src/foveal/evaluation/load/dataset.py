"""What is sent: chat requests with texts, pictures, output lengths and priorities drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foveal.core.errors import ConfigurationError
from foveal.core.priority import Priority
from foveal.evaluation.load.pictures import PictureSource
from foveal.evaluation.load.words import TokenScale, random_words

__all__ = ["LoadRequest", "Workload", "WorkloadConfig", "parse_priority_mix"]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request before it is sent. `content` holds the parts of its only (user) message."""

    index: int
    content: list[dict[str, Any]]
    max_tokens: int
    priority: Priority | None = None
    """None sends no priority header."""


@dataclass(frozen=True, slots=True)
class WorkloadConfig:
    """Lengths in tokens; each is drawn uniformly from [n (1 - spread), n (1 + spread)]."""

    input_tokens: int = 256
    """Text of a prompt, the shared prefix included, pictures and chat template not."""
    output_tokens: int = 64
    length_spread: float = 0.0
    shared_prefix_tokens: int = 0
    """The first so many tokens of each prompt are the same, and come before any picture."""
    images_per_request: int = 0
    priority_mix: Mapping[Priority, float] = field(default_factory=dict)
    """Weights; empty sends no priority."""

    def __post_init__(self) -> None:
        if self.input_tokens < 1 or self.output_tokens < 1:
            raise ConfigurationError(
                f"lengths are {self.input_tokens} input and {self.output_tokens} output tokens; both must be at least 1"
            )
        if not 0.0 <= self.length_spread <= 1.0:
            raise ConfigurationError(f"the length spread is {self.length_spread:g}; it must be between 0 and 1")
        if not 0 <= self.shared_prefix_tokens <= self.input_tokens:
            raise ConfigurationError(
                f"the shared prefix has {self.shared_prefix_tokens} tokens and prompts have {self.input_tokens}; "
                "it is a part of them, so raise --input-tokens or lower --shared-prefix-tokens"
            )


class Workload:
    """An endless, repeatable stream of requests: the same seed draws the same ones."""

    def __init__(
        self, config: WorkloadConfig, scale: TokenScale, pictures: PictureSource | None = None, seed: int = 0
    ) -> None:
        if config.images_per_request and pictures is None:
            raise ConfigurationError("pictures are wanted but there is no source of them")
        self._config = config
        self._scale = scale
        self._pictures = pictures
        self._rng = random.Random(f"workload {seed}")
        prefix_rng = random.Random(f"prefix {seed}")
        self._prefix = random_words(scale.words_for(config.shared_prefix_tokens), prefix_rng)
        self._num_made = 0

    def next(self) -> LoadRequest:
        """Draw the next request. May take milliseconds if it has to draw pictures."""
        config, rng = self._config, self._rng
        content: list[dict[str, Any]] = []
        if self._prefix:
            content.append({"type": "text", "text": self._prefix})
        if self._pictures is not None:
            content.extend(
                {"type": "image_url", "image_url": {"url": self._pictures.next(rng)}}
                for _ in range(config.images_per_request)
            )
        own_tokens = self._length(config.input_tokens) - config.shared_prefix_tokens
        words = random_words(self._scale.words_for(own_tokens), rng)
        if words or not content:
            content.append({"type": "text", "text": words or "the"})
        priority = None
        if config.priority_mix:
            [priority] = rng.choices(list(config.priority_mix), list(config.priority_mix.values()))
        request = LoadRequest(self._num_made, content, max(1, self._length(config.output_tokens)), priority)
        self._num_made += 1
        return request

    def _length(self, tokens: int) -> int:
        spread = self._config.length_spread
        return round(tokens * self._rng.uniform(1 - spread, 1 + spread))


def parse_priority_mix(text: str) -> dict[Priority, float]:
    """ "P0=0.1,P1=0.9" -> weights. Raises ConfigurationError."""
    mix: dict[Priority, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition("=")
        try:
            mix[Priority[name.strip().upper()]] = float(weight)
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"the priority mix has {part!r}; write weights of P0, P1 and P2, for example P0=0.1,P1=0.6,P2=0.3"
            ) from None
    if mix and (min(mix.values()) < 0 or not sum(mix.values()) > 0):
        raise ConfigurationError(f"the priority mix is {text!r}; weights must not be negative, nor all 0")
    return mix
