"""POST /v1/completions: one engine request per prompt; `n` choices each, numbered through."""

from __future__ import annotations

from starlette.types import Scope

from foveal.core.errors import PromptTooLongError
from foveal.engine.api import GenerationRequest
from foveal.engine.outputs import ChoiceDelta, TokenLogprob
from foveal.engine.server.chat import check_text_length, finish_name, request_priority
from foveal.engine.server.context import ServerContext
from foveal.engine.server.generation import Job
from foveal.engine.server.limits import Lease
from foveal.engine.server.logprobs import TokenText, to_completion_logprobs
from foveal.engine.server.recorder import RequestTimer
from foveal.protocol.completion_response import Completion, CompletionChoice, CompletionChunk
from foveal.protocol.completions import CompletionRequest
from foveal.protocol.decoding import decode_request
from foveal.protocol.usage import Usage

__all__ = ["CompletionWriter", "prepare_completion"]


async def prepare_completion(
    context: ServerContext, scope: Scope, body: bytes, lease: Lease, timer: RequestTimer
) -> Job:
    """Parse and validate. Raises RequestError. The last two arguments are for images, which completions have not."""
    request, unknown = decode_request(body, CompletionRequest)
    context.check_model(request.model)
    sampling = request.to_sampling()
    prompts = request.prompts(context.config.max_prompts)
    _check_lengths(context, prompts, request.truncate_prompt_tokens)
    timer.images_loaded(0, 0)
    request_id = "cmpl-" + context.new_id()
    priority = request_priority(request, scope)
    requests = [
        GenerationRequest(
            request_id=request_id if len(prompts) == 1 else f"{request_id}-{index}",
            sampling=sampling,
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_token_ids=None if isinstance(prompt, str) else prompt,
            priority=priority,
            timeout_s=context.config.request_timeout_s,
            cache_salt=request.cache_salt or "",
            truncate_prompt_tokens=request.truncate_prompt_tokens,
        )
        for index, prompt in enumerate(prompts)
    ]
    writer = CompletionWriter(
        request_id,
        int(context.wall_time()),
        context.model_names[0],
        sampling.n,
        len(prompts),
        context.engine.token_text,
    )
    ignored = [*request.ignored_fields(), *unknown]
    return Job(requests, writer, bool(request.stream), request.include_usage, ignored)


def _check_lengths(context: ServerContext, prompts: list[str | list[int]], keep_tokens: int | None) -> None:
    check_text_length(context, sum(len(prompt) for prompt in prompts if isinstance(prompt, str)), "prompt")
    limit = context.engine.model.max_model_len
    longest = max((len(prompt) for prompt in prompts if not isinstance(prompt, str)), default=0)
    if longest >= limit and keep_tokens is None:
        raise PromptTooLongError(
            f"the prompt has {longest:,} tokens; the limit is {limit - 1:,}. Shorten it or raise --max-model-len",
            param="prompt",
        )


class CompletionWriter:
    """Implements ResponseWriter."""

    def __init__(
        self, request_id: str, created_s: int, model: str, n: int, num_prompts: int, token_text: TokenText
    ) -> None:
        self._head = (request_id, created_s, model)
        self._n = n
        self._token_text = token_text
        count = n * num_prompts
        self._texts: list[list[str]] = [[] for _ in range(count)]
        self._logprobs: list[list[TokenLogprob] | None] = [None] * count
        self._ends: list[ChoiceDelta | None] = [None] * count
        self._offsets = [0] * count

    def opening(self) -> list[object]:
        return []

    def chunk(self, prompt: int, delta: ChoiceDelta) -> object | None:
        if not delta.text and delta.finish_reason is None and not delta.logprobs:
            return None
        index = prompt * self._n + delta.index
        choice = CompletionChoice(index, delta.text)
        if delta.logprobs:
            formatted = to_completion_logprobs(delta.logprobs, self._token_text, self._offsets[index])
            self._offsets[index] += sum(len(token) for token in formatted.tokens)
            choice.logprobs = formatted
        if delta.finish_reason is not None:
            choice.finish_reason = finish_name(delta)
            choice.stop_reason = delta.stop_reason
        return CompletionChunk(*self._head, [choice])

    def usage_chunk(self, usage: Usage) -> object:
        return CompletionChunk(*self._head, [], usage)

    def collect(self, prompt: int, delta: ChoiceDelta) -> None:
        index = prompt * self._n + delta.index
        self._texts[index].append(delta.text)
        if delta.logprobs is not None:
            self._logprobs[index] = (self._logprobs[index] or []) + list(delta.logprobs)
        if delta.finish_reason is not None:
            self._ends[index] = delta

    def answer(self, usage: Usage) -> object:
        return Completion(*self._head, [self._choice(index) for index in range(len(self._texts))], usage)

    def _choice(self, index: int) -> CompletionChoice:
        end, logprobs = self._ends[index], self._logprobs[index]
        choice = CompletionChoice(index, "".join(self._texts[index]))
        if logprobs is not None:
            choice.logprobs = to_completion_logprobs(logprobs, self._token_text, 0)
        if end is not None:
            choice.finish_reason = finish_name(end)
            choice.stop_reason = end.stop_reason
        return choice
