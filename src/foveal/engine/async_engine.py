"""The engine as front ends see it: text and pictures in, text deltas out.

Preprocessing runs in worker processes and the model in an engine process; this object lives on one event loop and never
blocks it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from foveal.core.clock import Clock, MonotonicClock
from foveal.core.errors import (
    EngineDeadError,
    FovealError,
    InvalidRequestError,
    OverloadedError,
    PromptTooLongError,
    RequestTimeoutError,
    TooManyImagesError,
)
from foveal.engine.api import EngineStats, GenerationRequest, ModelCard
from foveal.engine.config import EngineConfig
from foveal.engine.engine_link import EngineLink, StreamItem
from foveal.engine.ipc import AddRequest, Prepared, Ready, TokenEvent
from foveal.engine.output_stream import OutputStream
from foveal.engine.outputs import RequestMetrics, RequestOutput
from foveal.engine.preprocess_pool import PreprocessPool
from foveal.engine.scheduling.request import FinishReason
from foveal.engine.segments import create_segment_directory, unlink_segment
from foveal.engine.text.token_bytes import TokenBytes
from foveal.protocol.model_costs import ModelCosts, VisionFacts

__all__ = ["AsyncEngine"]


class AsyncEngine:
    """Implements EngineClient. Create it, `await start()`, and `await stop()` at the end (or use `async with`)."""

    def __init__(self, config: EngineConfig, clock: Clock | None = None) -> None:
        self.config = config
        self._clock = clock or MonotonicClock()
        self._created_s = int(time.time())
        self._directory: Path | None = None
        self._pool: PreprocessPool | None = None
        self._link: EngineLink | None = None
        self._tokens: TokenBytes | None = None
        self._vision: VisionFacts | None = None
        self._in_flight = 0
        self._pixel_bytes = 0

    async def start(self) -> Ready:
        """Start all processes, load and warm up. Raises ModelLoadError, ArtifactError or ConfigurationError."""
        self._directory = create_segment_directory()
        self._pool = PreprocessPool(self.config, self._directory)
        self._link = EngineLink(self.config, self._directory)
        pool, link = asyncio.create_task(self._pool.start()), asyncio.create_task(self._link.start())
        try:
            worker, ready = await asyncio.gather(pool, link)
        except BaseException:
            pool.cancel()
            link.cancel()
            await asyncio.gather(pool, link, return_exceptions=True)
            await self.stop()
            raise
        self._tokens = TokenBytes(Tokenizer.from_str(worker.tokenizer_json))
        self._vision = worker.vision
        return ready

    async def stop(self) -> None:
        """End all processes; requests in flight get EngineDeadError. Idempotent."""
        if self._link is not None:
            await self._link.stop()
        if self._pool is not None:
            await self._pool.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def __aenter__(self) -> AsyncEngine:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def ready_info(self) -> Ready:
        """What the engine process reported. Raises EngineDeadError before `start`."""
        if self._link is None or self._link.ready is None:
            raise EngineDeadError("the engine has not started")
        return self._link.ready

    @property
    def engine_pid(self) -> int | None:
        return None if self._link is None else self._link.pid

    @property
    def restarts(self) -> int:
        return 0 if self._link is None else self._link.restarts

    @property
    def model(self) -> ModelCard:
        ready = self.ready_info
        return ModelCard(
            id=self.config.model_name,
            root=self.config.model_name,
            max_model_len=ready.max_model_len,
            supports_images=ready.supports_images,
            created_s=self._created_s,
            costs=ModelCosts(ready.kv_bytes_per_token, self._vision, ready.latency),
        )

    @property
    def is_ready(self) -> bool:
        return self._tokens is not None and self._link is not None and self._link.is_alive

    @property
    def num_in_flight(self) -> int:
        return self._in_flight

    def stats(self) -> EngineStats:
        return EngineStats() if self._link is None else self._link.stats

    def tokenize(self, text: str) -> list[int]:
        return list(self._require_tokens().backend.encode(text).ids)

    def token_text(self, token_id: int) -> str:
        return str(self._require_tokens().backend.decode([token_id], skip_special_tokens=False))

    async def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        """See EngineClient.generate."""
        arrival_s = self._clock.now_s()
        link, pool = self._admit(request)
        queue = link.open_stream(request.request_id)
        segment: str | None = None
        pixel_bytes = 0
        finished = submitted = False
        self._in_flight += 1
        try:
            prepared = await self._prepare(pool, request, arrival_s)
            segment = prepared.segment
            pixel_bytes = self._reserve_pixels(sum(image.num_bytes for image in prepared.images))
            message = self._add_message(request, prepared, arrival_s)
            stream = OutputStream(message, self._require_tokens(), continues_text=request.messages is None)
            preprocess_s = message.prepared_s - arrival_s
            submitted = True
            await link.add(message)
            ttft_s = 0.0
            while not finished:
                events = [await queue.get()]
                while not queue.empty():  # a slow reader gets several steps at once instead of falling behind
                    events.append(queue.get_nowait())
                tokens = [event for event in events if isinstance(event, TokenEvent)]
                now_s = self._clock.now_s()
                ttft_s = ttft_s or now_s - arrival_s
                deltas = stream.push(tokens)
                for index in stream.take_stopped():
                    link.finish_choice(request.request_id, index)
                finished = stream.finished
                if deltas or finished:
                    metrics = RequestMetrics(
                        preprocess_s=preprocess_s,
                        queue_s=tokens[-1].queue_s,
                        encode_s=tokens[-1].encode_s,
                        prefill_s=tokens[-1].prefill_s,
                        ttft_s=ttft_s,
                        e2e_s=now_s - arrival_s,
                    )
                    yield RequestOutput(request.request_id, deltas, stream.usage, finished, metrics)
                self._raise_failure(events, request)
        finally:
            self._in_flight -= 1
            self._pixel_bytes -= pixel_bytes
            link.close_stream(request.request_id)
            if submitted and not finished:
                link.abort(request.request_id)
            if segment is not None and self._directory is not None:
                unlink_segment(self._directory, segment)

    def _admit(self, request: GenerationRequest) -> tuple[EngineLink, PreprocessPool]:
        if self._link is None or self._pool is None or not self.is_ready:
            raise EngineDeadError("the engine is not running; it is starting or restarting, retry in a few seconds")
        given = [x is not None for x in (request.messages, request.prompt, request.prompt_token_ids)]
        if sum(given) != 1:
            raise InvalidRequestError("exactly one of messages, prompt and prompt_token_ids is needed", param="prompt")
        if self._link.has_stream(request.request_id):
            raise InvalidRequestError(f"request id {request.request_id!r} is in use; ids must be unique")
        limit = self.config.max_images_per_request
        if len(request.images) > limit:
            raise TooManyImagesError(
                f"the request has {len(request.images)} images; the limit is {limit}. Send fewer or raise "
                "--max-images-per-request",
                param="messages",
            )
        if request.images and not self.ready_info.supports_images:
            raise InvalidRequestError(
                f"model {self.config.model_name!r} reads text only, and the request has {len(request.images)} images",
                param="messages",
            )
        return self._link, self._pool

    async def _prepare(self, pool: PreprocessPool, request: GenerationRequest, arrival_s: float) -> Prepared:
        timeout_s = None if request.timeout_s is None else request.timeout_s - (self._clock.now_s() - arrival_s)
        try:
            # Not wait_for: before Python 3.12 it can swallow a cancellation that comes together with the result.
            async with asyncio.timeout(timeout_s):
                return await pool.prepare(request)
        except TimeoutError:
            raise self._timeout(request, "reading its images") from None

    @staticmethod
    def _timeout(request: GenerationRequest, doing: str) -> RequestTimeoutError:
        return RequestTimeoutError(
            f"the request was still {doing} after {request.timeout_s:g} s; lower max_tokens or raise --request-timeout"
        )

    def _raise_failure(self, events: Sequence[StreamItem], request: GenerationRequest) -> None:
        for event in events:
            if isinstance(event, FovealError):
                raise event
            if event.finish_reason is FinishReason.TIMEOUT:
                raise self._timeout(request, "generating")

    def _reserve_pixels(self, pixel_bytes: int) -> int:
        limit = self.config.max_pixel_bytes_in_flight
        if self._pixel_bytes and self._pixel_bytes + pixel_bytes > limit:
            raise OverloadedError(
                f"{self._pixel_bytes:,} bytes of pixels are in flight and this request adds {pixel_bytes:,}; the limit is "
                f"{limit:,}. Retry shortly"
            )
        self._pixel_bytes += pixel_bytes
        return pixel_bytes

    def _add_message(self, request: GenerationRequest, prepared: Prepared, arrival_s: float) -> AddRequest:
        token_ids = self._truncate(request, prepared)
        max_model_len = self.ready_info.max_model_len
        if not token_ids:
            raise InvalidRequestError("the prompt is empty; send at least one token", param="prompt")
        if len(token_ids) >= max_model_len:
            image_tokens = sum(image.num_tokens for image in prepared.images)
            raise PromptTooLongError(
                f"the request has {len(token_ids):,} tokens ({image_tokens:,} from {len(prepared.images)} images); the limit "
                f"is {max_model_len - 1:,}. Shorten it, lower the image resolution or raise --max-model-len",
                param="messages" if request.messages is not None else "prompt",
            )
        room = max_model_len - len(token_ids)
        sampling = request.sampling
        if sampling.max_tokens is None or sampling.max_tokens > room:
            sampling = sampling.with_max_tokens(room)
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(63)
        salt = hashlib.blake2b(request.cache_salt.encode(), digest_size=16).digest() if request.cache_salt else b""
        return AddRequest(
            request_id=request.request_id,
            token_ids=token_ids,
            images=prepared.images,
            spans=prepared.spans,
            segment=prepared.segment,
            sampling=sampling,
            seed=seed,
            priority=int(request.priority),
            arrival_s=arrival_s,
            prepared_s=self._clock.now_s(),
            deadline_s=None if request.timeout_s is None else arrival_s + request.timeout_s,
            cache_salt=salt,
        )

    @staticmethod
    def _truncate(request: GenerationRequest, prepared: Prepared) -> list[int]:
        keep = request.truncate_prompt_tokens
        if keep is None or len(prepared.token_ids) <= keep:
            return prepared.token_ids
        if prepared.images:
            raise InvalidRequestError(
                "truncate_prompt_tokens would cut into the images of the prompt; shorten the text instead",
                param="truncate_prompt_tokens",
            )
        return prepared.token_ids[-keep:]

    def _require_tokens(self) -> TokenBytes:
        if self._tokens is None:
            raise EngineDeadError("the engine has not started")
        return self._tokens
