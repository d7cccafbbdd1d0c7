"""The engine process: loads the model, then alternates between its inbox and engine steps until the socket closes.

Run as `python -m foveal.engine.engine_process FD`.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import structlog

from foveal.core.collector import calm_collector
from foveal.core.errors import IntegrityError, RequestError
from foveal.core.priority import Priority
from foveal.engine.ipc import (
    AbortGroup,
    AddRequest,
    FinishChoice,
    FramedSocket,
    Message,
    Ready,
    RequestFailed,
    StartEngine,
    StartFailed,
    StepEvents,
    TokenEvent,
)
from foveal.engine.loop import EngineLoop
from foveal.engine.remote_error import describe_error
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.engine.segments import read_segment, unlink_segment
from foveal.models.image_input import PromptInput
from foveal.observability.logs import configure_logging
from foveal.protocol.model_costs import LatencyCoefficients

__all__ = ["EngineProcess", "main"]

_log = structlog.get_logger(__name__)


def main(fd: int) -> int:
    # The front end decides when to stop; it closes the socket then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = FramedSocket.from_fd(fd)
    hello = link.receive()
    if not isinstance(hello, StartEngine):
        return 1
    configure_logging(hello.config.log_level, hello.config.log_format)
    try:
        started_s = time.monotonic()
        from foveal.engine.build import build_engine_loop

        loop = build_engine_loop(hello.config)
        calm_collector()
        link.send(_ready(loop, time.monotonic() - started_s))
    except Exception as error:
        kind, message, _ = describe_error(error)
        link.send(StartFailed(kind, message))
        return 1
    EngineProcess(loop, link, Path(hello.segment_directory)).serve()
    return 0


def _ready(loop: EngineLoop, load_s: float) -> Ready:
    spec, kv = loop.runner.model.spec, loop.runner.kv_cache
    control = loop.scheduler.latency
    model = None if control is None else control.model
    return Ready(
        max_model_len=loop.max_model_len,
        supports_images=spec.supports_images,
        num_kv_blocks=kv.num_blocks,
        kv_bytes=kv.nbytes,
        dtype=str(loop.runner.model.dtype).removeprefix("torch."),
        decoder=getattr(loop.runner.model, "decoder", "other"),
        load_s=load_s,
        eos_token_ids=spec.eos_token_ids,
        # One block more than can be used: padding is written there.
        kv_bytes_per_token=kv.nbytes // ((kv.num_blocks + 1) * kv.block_size),
        latency=None if model is None else LatencyCoefficients(list(model.step), model.vision and list(model.vision)),
    )


class EngineProcess:
    """Connects an EngineLoop to a socket."""

    def __init__(self, loop: EngineLoop, link: FramedSocket, segment_directory: Path) -> None:
        self._loop = loop
        self._link = link
        self._directory = segment_directory
        self._inbox: queue.SimpleQueue[Message | _Compiled | None] = queue.SimpleQueue()
        # Grammars compile on their own thread: a large schema must not stall everybody's tokens.
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._compiling: set[str] = set()

    def serve(self) -> None:
        """Returns when the front end is gone."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()
        try:
            while self._drain_inbox():
                events = self._loop.step()
                if events:
                    self._send(events)
        except OSError:
            return  # the front end is gone; nobody is left to tell
        finally:
            self._compiler.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> None:
        while (message := self._link.receive()) is not None:
            self._inbox.put(message)
        self._inbox.put(None)

    def _drain_inbox(self) -> bool:
        """Handle all waiting messages; block for one when there is nothing to compute. False at end-of-file."""
        if not self._loop.has_work:
            self._loop.check_idle()
            message = self._inbox.get()
            if message is None:
                return False
            self._handle(message)
        pause_s = self._loop.pause_s
        while True:
            try:
                # Woken by a message, at the latest when pictures that wait for company must go.
                message = self._inbox.get(timeout=pause_s) if pause_s > 0.0 else self._inbox.get_nowait()
                pause_s = 0.0
            except queue.Empty:
                return True
            if message is None:
                return False
            self._handle(message)

    def _handle(self, message: Message | _Compiled) -> None:
        if isinstance(message, AddRequest):
            self._add(message)
        elif isinstance(message, _Compiled):
            self._add_compiled(message)
        elif isinstance(message, AbortGroup):
            self._compiling.discard(message.request_id)
            self._loop.abort(message.request_id)
            self._send([])
        elif isinstance(message, FinishChoice):
            self._loop.finish_choice(message.request_id, message.index)
            self._send([])

    def _add(self, message: AddRequest) -> None:
        if message.sampling.guided is None:
            self._admit(message, None)
            return
        self._compiling.add(message.request_id)

        def compile_guide() -> None:
            try:
                self._inbox.put(_Compiled(message, self._loop.compile_guide(message.sampling), None))
            except Exception as error:
                self._inbox.put(_Compiled(message, None, error))

        self._compiler.submit(compile_guide)

    def _add_compiled(self, compiled: _Compiled) -> None:
        message = compiled.message
        if message.request_id not in self._compiling:
            unlink_segment(self._directory, message.segment)
            return  # aborted meanwhile
        self._compiling.discard(message.request_id)
        if compiled.error is not None:
            self._fail(message, compiled.error)
        else:
            self._admit(message, compiled.guide)

    def _admit(self, message: AddRequest, guide: object) -> None:
        try:
            request, prompt = self._build(message)
            self._loop.add(request, prompt, seed=message.seed, guide=guide, prepared_s=message.prepared_s)
        except IntegrityError:
            raise
        except Exception as error:
            self._fail(message, error)

    def _fail(self, message: AddRequest, error: Exception) -> None:
        kind, text, param = describe_error(error)
        if not isinstance(error, RequestError):
            _log.error("request_failed", request_id=message.request_id, error=text)
        self._link.send(RequestFailed(message.request_id, kind, text, param))

    def _build(self, message: AddRequest) -> tuple[Request, PromptInput]:
        try:
            images = read_segment(self._directory, message.segment, message.images)
        finally:
            # The mapping keeps the pages; the name is not needed again, so a crash later leaks nothing.
            unlink_segment(self._directory, message.segment)
        spec = self._loop.runner.model.spec
        feature_row_bytes = spec.feature_width * self._loop.runner.model.dtype.itemsize
        request = Request(
            request_id=message.request_id,
            prompt_token_ids=message.token_ids,
            sampling=message.sampling,
            arrival_s=message.arrival_s,
            priority=Priority(message.priority),
            deadline_s=message.deadline_s,
            images=tuple(
                ImageRef(i.content_hash, i.num_tokens, i.num_tokens * feature_row_bytes, i.encode_tokens)
                for i in message.images
            ),
            spans=message.spans,
            cache_salt=message.cache_salt,
        )
        return request, PromptInput(message.token_ids, images, message.spans)

    def _send(self, events: list[TokenEvent]) -> None:
        self._link.send(StepEvents(tuple(events), asdict(self._loop.stats())))


class _Compiled:
    """A request whose grammar is ready, or could not be compiled."""

    def __init__(self, message: AddRequest, guide: object, error: Exception | None) -> None:
        self.message = message
        self.guide = guide
        self.error = error


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    # Not sys.exit: torch's thread pools and a compiling grammar need not be torn down in order.
    os._exit(code)
