"""From engine events to a response, for both endpoints: merging prompts, time-outs, streaming, accounting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, cast

from foveal.core.errors import RequestError, RequestTimeoutError
from foveal.engine.api import EngineClient, GenerationRequest
from foveal.engine.outputs import ChoiceDelta, RequestMetrics, RequestOutput
from foveal.engine.scheduling.request import FinishReason
from foveal.engine.server.context import ServerContext
from foveal.engine.server.exchange import Exchange, Headers
from foveal.engine.server.recorder import RequestTimer
from foveal.protocol.sse import DONE, event
from foveal.protocol.usage import Usage

__all__ = ["Job", "ResponseWriter", "merge_streams", "run_job"]


class ResponseWriter(Protocol):
    """The format of one endpoint. `prompt` is the index of the prompt within the request."""

    def opening(self) -> list[object]:
        """Chunks that come before any text."""

    def chunk(self, prompt: int, delta: ChoiceDelta) -> object | None:
        """One chunk of a stream, None if there is nothing to say yet."""

    def usage_chunk(self, usage: Usage) -> object: ...

    def collect(self, prompt: int, delta: ChoiceDelta) -> None:
        """Keep it for `answer`."""

    def answer(self, usage: Usage) -> object:
        """The whole response, from what was collected."""


@dataclass(slots=True)
class Job:
    """A parsed request, ready to run."""

    requests: Sequence[GenerationRequest]
    writer: ResponseWriter
    stream: bool
    include_usage: bool
    ignored_fields: Sequence[str] = ()


async def run_job(context: ServerContext, exchange: Exchange, job: Job, timer: RequestTimer) -> None:
    """Send the complete response. Errors are raised, before or after the first byte: the middleware reports them."""
    progress = _Progress(timer, len(job.requests))
    async with aclosing(merge_streams(context.engine, job.requests)) as events:
        if job.stream:
            await _stream(exchange, job, progress, events)
        else:
            await _answer(exchange, job, progress, events)


async def _answer(
    exchange: Exchange, job: Job, progress: _Progress, events: AsyncIterator[tuple[int, RequestOutput]]
) -> None:
    metrics = RequestMetrics()
    async for prompt, output in events:
        progress.update(prompt, output)
        metrics = output.metrics
        for delta in output.deltas:
            job.writer.collect(prompt, delta)
    await exchange.send_json(job.writer.answer(progress.usage()), _headers(job, progress, metrics))


async def _stream(
    exchange: Exchange, job: Job, progress: _Progress, events: AsyncIterator[tuple[int, RequestOutput]]
) -> None:
    started = False
    async for prompt, output in events:
        progress.update(prompt, output)
        frames: list[bytes] = []
        if not started:
            # Headers wait for the first event: errors before it get their own status, and Server-Timing is complete.
            started = True
            await exchange.start_stream(_headers(job, progress, output.metrics))
            frames = [event(chunk) for chunk in job.writer.opening()]
        for delta in output.deltas:
            chunk = job.writer.chunk(prompt, delta)
            if chunk is not None:
                frames.append(event(chunk))
        if frames:
            await exchange.send_events(frames[0] if len(frames) == 1 else b"".join(frames))
    tail = event(job.writer.usage_chunk(progress.usage())) if job.include_usage else b""
    await exchange.end_stream(tail + DONE)


async def merge_streams(
    engine: EngineClient, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """(index of the request, event) as they come. Closing it, or one request failing, aborts all."""
    if len(requests) == 1:
        async with _closing(engine.generate(requests[0])) as stream:
            async for output in stream:
                yield 0, output
        return
    # Bounded, so that a client that does not read slows the engine's streams and not our memory.
    queue: asyncio.Queue[tuple[int, RequestOutput | BaseException | None]] = asyncio.Queue(2 * len(requests))

    async def pump(index: int, request: GenerationRequest) -> None:
        try:
            async with _closing(engine.generate(request)) as stream:
                async for output in stream:
                    await queue.put((index, output))
            await queue.put((index, None))
        except Exception as error:
            await queue.put((index, error))

    tasks = [asyncio.create_task(pump(index, request)) for index, request in enumerate(requests)]
    try:
        running = len(tasks)
        while running:
            index, item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _closing(stream: AsyncIterator[RequestOutput]) -> aclosing[AsyncGenerator[RequestOutput, None]]:
    # EngineClient promises that closing the iterator aborts, so it is a generator.
    return aclosing(cast("AsyncGenerator[RequestOutput, None]", stream))


class _Progress:
    """Usage and finish reasons over all prompts of a request."""

    def __init__(self, timer: RequestTimer, num_prompts: int) -> None:
        self.timer = timer
        self._last: list[RequestOutput | None] = [None] * num_prompts
        self._reasons: list[list[str]] = [[] for _ in range(num_prompts)]

    def update(self, prompt: int, output: RequestOutput) -> None:
        """Raises RequestError for a choice that did not end well."""
        self._last[prompt] = output
        self.timer.event(output)
        for delta in output.deltas:
            if delta.finish_reason is not None:
                _check_finish(delta.finish_reason)
                self._reasons[prompt].append(delta.finish_reason.value)
        if output.finished:
            self.timer.finished(output, self._reasons[prompt])

    def usage(self) -> Usage:
        usages = [output.usage for output in self._last if output is not None]
        return Usage.of(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
            sum(usage.image_tokens for usage in usages),
        )


def _check_finish(reason: FinishReason) -> None:
    if reason in (FinishReason.STOP, FinishReason.LENGTH):
        return
    if reason is FinishReason.TIMEOUT:
        raise RequestTimeoutError(
            "the request reached its time-out before it was complete; lower max_tokens or raise --request-timeout"
        )
    raise RequestError(f"the engine ended the request ({reason.value}); retry it")


def _headers(job: Job, progress: _Progress, metrics: RequestMetrics) -> Headers:
    headers: Headers = [(b"server-timing", progress.timer.server_timing(metrics).encode())]
    if job.ignored_fields:
        shown = [name for name in job.ignored_fields if name.isascii() and name.isidentifier()][:20]
        others = len(job.ignored_fields) - len(shown)
        text = "ignored fields: " + ", ".join([*(name[:64] for name in shown), *([f"{others} more"] if others else [])])
        headers.append((b"x-foveal-warning", text.encode()))
    return headers
