"""Messages or prompts of a request -> how much text, which images, what a prefix cache would share."""

from __future__ import annotations

from dataclasses import dataclass, field

from foveal.core.errors import ImageDecodeError, InvalidRequestError, PayloadTooLargeError, TooManyImagesError
from foveal.gateway.request.body_cuts import BodyCuts, cut_urls
from foveal.gateway.request.body_fields import (
    ChatFields,
    CompletionFields,
    ImageUrl,
    MediaUrl,
    Message,
    Part,
    is_given,
)
from foveal.gateway.request.data_url import DataUrlFile
from foveal.gateway.request.fingerprint import fingerprint
from foveal.gateway.request.image_header.image_size import image_size
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.request.view import ImageRef

__all__ = ["PromptReader", "PromptSummary"]

_SCHEME_CHARS = 6


@dataclass(slots=True)
class PromptSummary:
    text_chars: int = 0
    prompt_ids: int = 0
    num_messages: int = 0
    num_prompts: int = 1
    has_tools: bool = False
    other_urls: bool = False
    images: list[ImageRef] = field(default_factory=list)
    prefix: list[str] = field(default_factory=list)
    """Up to and including the first message of the user."""


class PromptReader:
    """Reads one request's prompt. `is_final` says that every URL was cut out, in whatever notation."""

    def __init__(self, cuts: BodyCuts, limits: RequestLimits, is_final: bool = False) -> None:
        self._cuts = cuts
        self._limits = limits
        self._is_final = is_final
        self._has_cuts = bool(cuts.spans)
        self._summary = PromptSummary()

    def finer_cuts(self) -> BodyCuts:
        return cut_urls(self._cuts)

    def read_chat(self, fields: ChatFields) -> PromptSummary | None:
        """None if an image's place in the body is not known yet: cut finer and read again.

        Raises InvalidRequestError, TooManyImagesError, PayloadTooLargeError.
        """
        summary = self._summary
        summary.num_messages = len(fields.messages)
        self._check_parts(sum(1 + (len(m.content) if isinstance(m.content, list) else 0) for m in fields.messages))
        if is_given(fields.tools):
            tools = bytes(fields.tools)
            summary.has_tools = tools.strip(b"[] \t\r\n") != b""
            # The template writes them into the prompt.
            summary.text_chars += len(tools) if summary.has_tools else 0
        in_prefix = True
        for index, message in enumerate(fields.messages):
            pieces: list[str] = [message.role]
            if not self._read_message(message, index, pieces):
                return None
            if in_prefix:
                summary.prefix += pieces
                in_prefix = message.role != "user"
        return summary

    def _check_parts(self, count: int) -> None:
        if count > self._limits.max_parts:
            raise PayloadTooLargeError(
                f"the request has {count:,} messages and parts; the limit is {self._limits.max_parts:,}. Send fewer, "
                "longer ones",
                param="messages",
            )

    def _read_message(self, message: Message, index: int, pieces: list[str]) -> bool:
        if is_given(message.tool_calls):
            self._summary.text_chars += len(message.tool_calls)
        content = message.content
        if content is None:
            return True
        if isinstance(content, str):
            self._text(content, pieces)
            return True
        for position, part in enumerate(content):
            if isinstance(part, str):
                self._text(part, pieces)
            elif part.image_url is not None and part.type in ("", "image_url"):
                if not self._image(part.image_url, f"messages[{index}].content[{position}].image_url", pieces):
                    return False
            else:
                self._other(part, pieces)
        return True

    def _other(self, part: Part, pieces: list[str]) -> None:
        if part.text is not None:
            self._text(part.text, pieces)
        for media in (part.video_url, part.audio_url):
            if media is not None:
                url = media.url if isinstance(media, MediaUrl) else media
                self._summary.other_urls |= self._cuts.resolve(url)[:5].lower() != "data:"

    def _text(self, text: str, pieces: list[str]) -> None:
        if self._has_cuts:
            text = self._cuts.resolve(text)
        self._summary.text_chars += len(text)
        pieces.append(text)

    def _image(self, image_url: ImageUrl | str, param: str, pieces: list[str]) -> bool:
        if isinstance(image_url, str):
            url, detail = image_url, "auto"
        else:
            url, detail = image_url.url, image_url.detail or "auto"
        cut = self._cuts.index(url)
        if cut < 0:
            if self._is_final:
                raise InvalidRequestError(
                    f"{param} has URL {url[:40]!r}; send a data: URL (data:image/png;base64,...) or an http(s) URL",
                    param=param,
                )
            return False
        images = self._summary.images
        if len(images) >= self._limits.max_images:
            raise TooManyImagesError(
                f"the request has more than {self._limits.max_images} images, which is the limit. Send fewer",
                param="messages",
            )
        image = self._image_ref(cut, detail, param)
        images.append(image)
        pieces.append(image.fingerprint.hex())
        return True

    def _image_ref(self, cut: int, detail: str, param: str) -> ImageRef:
        start, end = self._cuts.spans[cut]
        body = self._cuts.body
        mark = fingerprint(body, start, end)
        if not self._cuts.starts_with_data(cut):
            return ImageRef("remote", start, end, detail, fingerprint=mark, param=param)
        try:
            file = DataUrlFile(body, start, end)
        except ValueError:
            raise ImageDecodeError(
                f"{param} is a data URL without a comma; write data:image/png;base64,...", param=param
            ) from None
        limits = self._limits
        if file.num_bytes > limits.max_image_bytes:
            raise PayloadTooLargeError(
                f"{param} has about {file.num_bytes:,} bytes; the limit is {limits.max_image_bytes:,}. Send a smaller image",
                param=param,
            )
        width, height = image_size(file) or (0, 0)
        if width * height > limits.max_image_pixels:
            raise PayloadTooLargeError(
                f"{param} has {width:,} x {height:,} pixels; the limit is {limits.max_image_pixels:,} in all. Send a smaller "
                "image",
                param=param,
            )
        return ImageRef("data", start, end, detail, width, height, file.num_bytes, mark, param=param)

    def read_completion(self, fields: CompletionFields) -> PromptSummary:
        """Raises InvalidRequestError if the prompt is neither text nor token ids nor a list of such."""
        prompt = fields.prompt
        summary = self._summary
        entries = [prompt] if isinstance(prompt, str) or _is_ids(prompt) else prompt
        for index, entry in enumerate(entries):
            if isinstance(entry, str):
                pieces: list[str] = []
                self._text(entry, pieces)
                summary.prefix += pieces if not index else []
            elif isinstance(entry, list) and _is_ids(entry):
                summary.prompt_ids += len(entry)
                if not index:
                    summary.prefix.append(repr(entry[:2048]))
            else:
                raise InvalidRequestError(
                    "prompt must be a string, a list of token ids, or a list of such prompts", param="prompt"
                )
        summary.num_prompts = summary.num_messages = max(1, len(entries))
        return summary


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
