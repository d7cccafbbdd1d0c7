"""Messages -> prompt text with the checkpoint's own Jinja template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from foveal.core.errors import InvalidRequestError

__all__ = ["ChatTemplate"]

_PROBE = "Xq7probe"
_RESERVED = {
    "add_generation_prompt",
    "chat_template",
    "conversation",
    "messages",
    "padding",
    "return_dict",
    "return_tensors",
    "tokenize",
    "truncation",
}


class ChatTemplate:
    """A checkpoint's template, and which message contents it understands: strings, lists of parts, or both."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        placeholder: str | None,
        reserved_tokens: Sequence[str] = (),
    ) -> None:
        """`placeholder` is the text of one image, None for text-only models.

        `reserved_tokens` mean an image to the model; where a user's text merely contains them, they are defused.
        """
        self._tokenizer = tokenizer
        self._reserved_tokens = tuple(reserved_tokens)
        self._template = template
        self._placeholder = placeholder
        self._takes_strings = self._understands(_PROBE)
        self._takes_parts = self._understands([{"type": "text", "text": _PROBE}])

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **options: Any
    ) -> str:
        """The prompt. Content is a string or a list of {"type": "text", "text": str} and {"type": "image"} parts.

        `options` are the template's own variables, such as enable_thinking. Raises InvalidRequestError if a message is
        malformed or the template refuses them (roles that do not alternate, for example).
        """
        if not messages:
            raise InvalidRequestError("messages is empty; send at least one", param="messages")
        reserved = _RESERVED & options.keys()
        if reserved:
            raise InvalidRequestError(
                f"chat_template_kwargs may not set {', '.join(sorted(reserved))}", param="chat_template_kwargs"
            )
        normalised = [{**message, "content": self._content(message)} for message in messages]
        try:
            return self._render(normalised, add_generation_prompt=add_generation_prompt, **options)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise InvalidRequestError(
                f"the model's chat template refused the messages: {error}. Check roles and their order.",
                param="messages",
            ) from error

    def _render(self, messages: list[dict[str, Any]], **options: Any) -> str:
        return str(
            self._tokenizer.apply_chat_template(messages, chat_template=self._template, tokenize=False, **options)
        )

    def _understands(self, content: str | list[dict[str, str]]) -> bool:
        """Templates loop over parts or print strings; given the wrong kind they print a Python list or nothing."""
        try:
            text = self._render([{"role": "user", "content": content}], add_generation_prompt=True)
        except Exception:
            return False
        return _PROBE in text and "'type'" not in text and '"type"' not in text

    def _content(self, message: Mapping[str, Any]) -> str | list[dict[str, Any]] | None:
        content = message.get("content")
        if content is None:
            return None if message.get("tool_calls") else self._content({"content": ""})
        if isinstance(content, str):
            text = self._escape(content)
            return text if self._takes_strings else [{"type": "text", "text": text}]
        if not isinstance(content, Sequence):
            raise InvalidRequestError(
                f"message content is {type(content).__name__}; it must be a string or a list of parts", param="messages"
            )
        parts = [self._part(part) for part in content]
        if self._takes_parts:
            return parts
        return "\n".join(part["text"] if part["type"] == "text" else str(self._placeholder) for part in parts)

    def _part(self, part: Any) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": self._escape(part["text"])}
        if kind == "image":
            if self._placeholder is None:
                raise InvalidRequestError(
                    "a message holds an image, but this model reads text only. Use a vision-language model.",
                    param="messages",
                )
            return {"type": "image"}
        raise InvalidRequestError(
            f"a message part has type {kind!r}; it must be 'text' with a text string, or 'image'", param="messages"
        )

    def _escape(self, text: str) -> str:
        """`<image>` typed by a user becomes `< image>`: it reads the same, but stands for no picture."""
        for token in self._reserved_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text
