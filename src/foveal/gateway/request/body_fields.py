"""The fields of a request that the gateway reads. Everything else passes through unread: the backend is its judge."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from foveal.core.sampling_params import MAX_N

__all__ = ["ABSENT", "ChatFields", "CommonFields", "CompletionFields", "ImageUrl", "Message", "Part", "is_given"]

ABSENT = msgspec.Raw(b"")  # one object: "is it there" is a comparison of identities


class ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class MediaUrl(msgspec.Struct):
    """A video or audio part of vLLM's."""

    url: str = ""


class Part(msgspec.Struct):
    """A part of a message. Servers guess a missing `type` from the fields."""

    type: str = ""
    text: str | None = None
    image_url: ImageUrl | str | None = None
    video_url: MediaUrl | str | None = None
    audio_url: MediaUrl | str | None = None


class Message(msgspec.Struct):
    role: str = ""
    content: str | list[Part | str] | None = None
    tool_calls: msgspec.Raw = ABSENT


class CommonFields(msgspec.Struct, kw_only=True):
    """Raw where the place in the body matters, or only the presence does."""

    model: msgspec.Raw = ABSENT
    stream: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] | None = None
    """Bounded here: the price, and with it quotas and fair shares, is a multiple of it."""
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    priority: msgspec.Raw = ABSENT
    cache_salt: msgspec.Raw = ABSENT
    prompt_cache_key: str | None = None


class ChatFields(CommonFields, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = ABSENT


class CompletionFields(CommonFields, kw_only=True):
    prompt: str | list[Any]


def is_given(raw: msgspec.Raw) -> bool:
    """Neither absent nor null."""
    return raw is not ABSENT and bytes(raw) != b"null"
