"""One request as the gateway sees it: what decisions need, and where in the body it stands. Pixels are never decoded."""

from __future__ import annotations

from typing import Literal

import msgspec

from foveal.core.priority import Priority

__all__ = ["Endpoint", "ImageRef", "RequestView"]

Endpoint = Literal["chat", "completion"]


# Structs, not dataclasses: a frozen dataclass of so many fields takes 10 us to make, which would be half of all reading.
class ImageRef(msgspec.Struct, frozen=True):
    """One image of the body. Another one that differs in some fields: msgspec.structs.replace."""

    kind: Literal["data", "remote"]
    start: int
    """Byte range [start, end) of the URL's text in the body, as it stands there, without the quotes."""
    end: int
    detail: str = "auto"
    width: int = 0
    """Pixels as a viewer shows them (EXIF turns sides), from the file's header; 0 where it could not be read, and for a
    remote image that was not fetched."""
    height: int = 0
    num_bytes: int = 0
    """Size of the encoded file (JPEG, PNG, ...)."""
    fingerprint: bytes = b""
    """8 bytes of samples of the text: equal texts have equal ones, different ones nearly always differ. Good for affinity;
    never for a cache key."""
    digest: bytes = b""
    """BLAKE3 (16 bytes) of the URL's text in the body: equal texts are equal images; b"" until somebody needs it
    (`with_digests`): it costs 1 ms per 4 MB."""
    param: str = ""
    """The request field, for error messages: messages[0].content[1].image_url."""


class RequestView(msgspec.Struct, frozen=True):
    """`body[model_start:model_end]` is the model's name, so that another one can be spliced in without a second parse."""

    endpoint: Endpoint
    model: str
    """"" where the body names none."""
    model_start: int
    """Without the quotes; 0, 0 where there is none."""
    model_end: int
    stream: bool
    num_bytes: int
    """Length of the body."""
    text_chars: int
    """Characters of all text of the prompt, tools and tool calls included."""
    num_choices: int = 1
    """Answers the backend is asked for: n times the number of prompts."""
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    priority: Priority | None = None
    """What the body, else X-Priority, asks for; the tenant's class caps it."""
    priority_start: int = 0
    """The value in the body [start, end), with quotes if it has any; 0, 0 where the body has none."""
    priority_end: int = 0
    session_id: str | None = None
    """X-Session-ID, else the body's prompt_cache_key."""
    cache_salt: str | None = None
    cache_salt_start: int = 0
    """The value in the body [start, end), with its quotes; 0, 0 where the body has none."""
    cache_salt_end: int = 0
    has_tools: bool = False
    images: tuple[ImageRef, ...] = ()
    prompt_ids: int = 0
    """Tokens that the prompt holds as ids (completions only): they need no estimate."""
    num_messages: int = 1
    """Messages, or prompts of a completions request: each costs a few tokens of template."""
    other_urls: bool = False
    """A video or audio part names an http(s) URL: a backend would fetch it."""
    prefix_digest: bytes = b""
    """BLAKE3 (16 bytes) of what a prefix cache would share: model, system prompt and the first user message."""
