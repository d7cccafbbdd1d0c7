"""Chat messages: roles, text and image parts, and the checks that types alone cannot express."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from foveal.core.errors import InvalidRequestError

__all__ = ["ChatMessage", "ContentPart", "ImagePart", "ImageUrl", "TextPart", "check_messages", "split_messages"]

Detail = Literal["auto", "low", "high"]


class ImageUrl(msgspec.Struct):
    """`url` is a data URL or an http(s) URL; `detail` chooses a pixel budget."""

    url: Annotated[str, msgspec.Meta(min_length=1)]
    detail: Detail | None = None


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    """OpenAI wants an object; a bare string is widespread and accepted."""

    image_url: ImageUrl | str

    @property
    def url(self) -> str:
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url

    @property
    def detail(self) -> str:
        return "auto" if isinstance(self.image_url, str) else self.image_url.detail or "auto"


ContentPart = TextPart | ImagePart


class ChatMessage(msgspec.Struct):
    """Fields it does not name (`refusal`, `annotations`, ...) are ignored: clients send back what they were given."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


def check_messages(messages: list[ChatMessage]) -> None:
    """Raises InvalidRequestError for an empty conversation or an empty message."""
    if not messages:
        raise InvalidRequestError(
            "messages is empty; send at least one message, for example "
            '{"role": "user", "content": "What is in this picture?"}',
            param="messages",
        )
    for index, message in enumerate(messages):
        param = f"messages[{index}].content"
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            raise InvalidRequestError(f"{param} is missing; send text or a list of parts", param=param)
        # An empty answer or tool result is something a client may honestly have to send back.
        if not message.content and message.role not in ("assistant", "tool"):
            raise InvalidRequestError(f"{param} is empty; send text or at least one image", param=param)
        if message.role in ("user", "system", "developer") and isinstance(message.content, list):
            texts = [part.text for part in message.content if isinstance(part, TextPart)]
            if len(texts) == len(message.content) and not any(texts):
                raise InvalidRequestError(f"{param} has only empty text; send text or at least one image", param=param)


def split_messages(messages: list[ChatMessage]) -> tuple[list[dict[str, Any]], list[tuple[str, ImagePart]]]:
    """(messages for the chat template, the image parts in order with the request field each came from).

    The k-th {"type": "image"} over all messages stands for the k-th image. `developer` is today's name of `system`, which
    is what chat templates know.
    """
    plain: list[dict[str, Any]] = []
    images: list[tuple[str, ImagePart]] = []
    for index, message in enumerate(messages):
        entry: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
        if isinstance(message.content, list):
            parts: list[dict[str, Any]] = []
            for position, part in enumerate(message.content):
                if isinstance(part, TextPart):
                    parts.append({"type": "text", "text": part.text})
                else:
                    parts.append({"type": "image"})
                    images.append((f"messages[{index}].content[{position}].image_url", part))
            entry["content"] = parts
        else:
            entry["content"] = message.content or ""
        for name in ("name", "tool_calls", "tool_call_id"):
            value = getattr(message, name)
            if value is not None:
                entry[name] = value
        plain.append(entry)
    return plain, images
