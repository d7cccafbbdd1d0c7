"""One request as the gateway sees it: what decisions need, and where in the body it stands. Pixels are never decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foveal.core.priority import Priority

__all__ = ["Endpoint", "ImageRef", "RequestView"]

Endpoint = Literal["chat", "completion"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of the body."""

    kind: Literal["data", "remote"]
    start: int
    """Byte range [start, end) of the URL's text in the body, without the quotes."""
    end: int
    detail: str = "auto"
    width: int = 0
    """Pixels, from the file's header; 0 for a remote image that was not fetched."""
    height: int = 0
    num_bytes: int = 0
    """Size of the encoded file (JPEG, PNG, ...)."""
    digest: bytes = b""
    """BLAKE3 (16 bytes) of the URL's text in the body: equal texts are equal images; b"" until somebody needs it."""


@dataclass(frozen=True, slots=True)
class RequestView:
    """`body[model_start:model_end]` is the model's name, so that another one can be spliced in without a second parse."""

    endpoint: Endpoint
    model: str
    model_start: int
    model_end: int
    stream: bool
    num_bytes: int
    """Length of the body."""
    text_chars: int
    """Characters of all text parts of the prompt."""
    num_choices: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    priority: Priority | None = None
    """What the body or X-Priority asks for; the tenant's class caps it."""
    session_id: str | None = None
    cache_salt: str | None = None
    has_tools: bool = False
    images: tuple[ImageRef, ...] = ()
    prefix_digest: bytes = b""
    """BLAKE3 (16 bytes) of what a prefix cache would share: system prompt and the first messages."""
