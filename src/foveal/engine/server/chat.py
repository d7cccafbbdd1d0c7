"""POST /v1/chat/completions: request -> GenerationRequest, engine events -> chunks or a whole answer."""

from __future__ import annotations

from starlette.types import Scope

from foveal.core.errors import InvalidRequestError
from foveal.core.priority import Priority
from foveal.engine.api import GenerationRequest
from foveal.engine.outputs import ChoiceDelta, TokenLogprob
from foveal.engine.server.body import header
from foveal.engine.server.context import ServerContext
from foveal.engine.server.generation import Job
from foveal.engine.server.images import load_images
from foveal.engine.server.limits import Lease
from foveal.engine.server.logprobs import TokenText, to_chat_logprobs
from foveal.engine.server.recorder import RequestTimer
from foveal.protocol.chat import ChatCompletionRequest
from foveal.protocol.chat_response import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    FinishReasonName,
    ResponseMessage,
)
from foveal.protocol.content import ChatMessage, TextPart, check_messages, split_messages
from foveal.protocol.decoding import decode_request
from foveal.protocol.generation_fields import GenerationFields, parse_priority
from foveal.protocol.usage import Usage

__all__ = ["ChatWriter", "check_text_length", "finish_name", "prepare_chat", "request_priority"]


async def prepare_chat(context: ServerContext, scope: Scope, body: bytes, lease: Lease, timer: RequestTimer) -> Job:
    """Parse, validate and load images. Raises RequestError."""
    request, unknown = decode_request(body, ChatCompletionRequest)
    context.check_model(request.model)
    sampling = request.to_sampling()
    check_messages(request.messages)
    check_text_length(context, _num_chars(request.messages), "messages")
    messages, parts = split_messages(request.messages)
    if parts and not context.engine.model.supports_images:
        raise InvalidRequestError(
            f"model {request.model!r} reads text only; remove the {len(parts)} images", param="messages"
        )
    images = await load_images(parts, context.config, context.fetcher, lease)
    timer.images_loaded(len(images), sum(part.url[:5].lower() != "data:" for _, part in parts))
    request_id = "chatcmpl-" + context.new_id()
    generation = GenerationRequest(
        request_id=request_id,
        sampling=sampling,
        messages=messages,
        images=images,
        image_details=[part.detail for _, part in parts],
        priority=request_priority(request, scope),
        timeout_s=context.config.request_timeout_s,
        cache_salt=request.cache_salt or "",
        chat_template_kwargs=request.chat_template_kwargs or {},
        add_generation_prompt=request.add_generation_prompt is not False,
        truncate_prompt_tokens=request.truncate_prompt_tokens,
    )
    writer = ChatWriter(
        request_id, int(context.wall_time()), context.model_names[0], sampling.n, context.engine.token_text
    )
    ignored = [*request.ignored_fields(), *unknown]
    return Job([generation], writer, bool(request.stream), request.include_usage, ignored)


def request_priority(request: GenerationFields, scope: Scope) -> Priority:
    """The body's priority, else the X-Priority header's, else P1. Raises InvalidRequestError."""
    priority = parse_priority(request.priority)
    if priority is None:
        priority = parse_priority(header(scope, b"x-priority"), "X-Priority")
    return Priority.P1 if priority is None else priority


def check_text_length(context: ServerContext, num_chars: int, param: str) -> None:
    """Raises InvalidRequestError for text that is too long to be worth tokenising."""
    limit = context.config.max_prompt_chars
    if num_chars > limit:
        raise InvalidRequestError(
            f"{param} has {num_chars:,} characters; the limit is {limit:,}. Shorten it",
            param=param,
        )


def _num_chars(messages: list[ChatMessage]) -> int:
    total = 0
    for message in messages:
        if isinstance(message.content, str):
            total += len(message.content)
        elif message.content:
            total += sum(len(part.text) for part in message.content if isinstance(part, TextPart))
    return total


class ChatWriter:
    """Implements ResponseWriter."""

    def __init__(self, request_id: str, created_s: int, model: str, n: int, token_text: TokenText) -> None:
        self._head = (request_id, created_s, model)
        self._token_text = token_text
        self._texts: list[list[str]] = [[] for _ in range(n)]
        self._logprobs: list[list[TokenLogprob] | None] = [None] * n
        self._ends: list[ChoiceDelta | None] = [None] * n

    def opening(self) -> list[object]:
        first = ChatDelta(role="assistant", content="")
        return [ChatChunk(*self._head, [ChatChunkChoice(index, first)]) for index in range(len(self._texts))]

    def chunk(self, prompt: int, delta: ChoiceDelta) -> object | None:
        if not delta.text and delta.finish_reason is None and not delta.logprobs:
            return None
        choice = ChatChunkChoice(delta.index, ChatDelta(content=delta.text or None))
        if delta.logprobs:
            choice.logprobs = to_chat_logprobs(delta.logprobs, self._token_text)
        if delta.finish_reason is not None:
            choice.finish_reason = finish_name(delta)
            choice.stop_reason = delta.stop_reason
        return ChatChunk(*self._head, [choice])

    def usage_chunk(self, usage: Usage) -> object:
        return ChatChunk(*self._head, [], usage)

    def collect(self, prompt: int, delta: ChoiceDelta) -> None:
        self._texts[delta.index].append(delta.text)
        if delta.logprobs is not None:
            self._logprobs[delta.index] = (self._logprobs[delta.index] or []) + list(delta.logprobs)
        if delta.finish_reason is not None:
            self._ends[delta.index] = delta

    def answer(self, usage: Usage) -> object:
        choices = [self._choice(index) for index in range(len(self._texts))]
        return ChatCompletion(*self._head, choices, usage)

    def _choice(self, index: int) -> ChatChoice:
        end = self._ends[index]
        logprobs = self._logprobs[index]
        formatted: ChatLogprobs | None = None if logprobs is None else to_chat_logprobs(logprobs, self._token_text)
        return ChatChoice(
            index=index,
            message=ResponseMessage("".join(self._texts[index])),
            finish_reason=None if end is None else finish_name(end),
            logprobs=formatted,
            stop_reason=None if end is None else end.stop_reason,
        )


def finish_name(delta: ChoiceDelta) -> FinishReasonName:
    """Other reasons are errors and never get here."""
    return "stop" if delta.finish_reason == "stop" else "length"
