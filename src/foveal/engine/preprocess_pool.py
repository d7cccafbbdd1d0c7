"""The front end's side of the preprocessing workers: sends jobs, restarts workers that die."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from pathlib import Path

from foveal.core.errors import EngineDeadError, ImageDecodeError
from foveal.engine.api import GenerationRequest
from foveal.engine.child import Child
from foveal.engine.config import EngineConfig
from foveal.engine.ipc import Message, Prepare, Prepared, PrepareFailed, StartWorker, WorkerReady
from foveal.engine.remote_error import rebuild_error
from foveal.engine.segments import unlink_segment
from foveal.engine.supervised_child import SupervisedChild

__all__ = ["PreprocessPool"]

_MODULE = "foveal.engine.preprocess_worker"


class PreprocessPool:
    """`config.preprocess_workers` processes; a job goes to the one with the fewest image bytes outstanding."""

    def __init__(self, config: EngineConfig, segment_directory: Path) -> None:
        self._config = config
        self._directory = segment_directory
        self._slots: list[_Slot] = []
        self._job_ids = itertools.count()

    async def start(self) -> WorkerReady:
        """Start all workers; returns what the first one reports. Raises what a worker fails with."""
        self._slots = [_Slot(self._config, self._directory) for _ in range(self._config.preprocess_workers)]
        ready = await asyncio.gather(*(slot.start() for slot in self._slots))
        return ready[0]

    async def prepare(self, request: GenerationRequest) -> Prepared:
        """Raises RequestError for input that cannot be used, EngineDeadError if no worker is alive."""
        alive = [slot for slot in self._slots if slot.is_alive]
        if not alive:
            raise EngineDeadError("all preprocessing workers are restarting; retry in a few seconds")
        job = Prepare(
            job_id=next(self._job_ids),
            messages=None if request.messages is None else [dict(m) for m in request.messages],
            prompt=request.prompt,
            token_ids=None if request.prompt_token_ids is None else list(request.prompt_token_ids),
            images=list(request.images),
            details=list(request.image_details),
            chat_template_kwargs=request.chat_template_kwargs,
            add_generation_prompt=request.add_generation_prompt,
        )
        return await min(alive, key=lambda slot: slot.outstanding).submit(job)

    async def stop(self) -> None:
        await asyncio.gather(*(slot.stop() for slot in self._slots))


class _Slot:
    """One worker and its successors."""

    def __init__(self, config: EngineConfig, directory: Path) -> None:
        self._directory = directory
        hello = StartWorker(config.model, str(directory), config.max_image_pixels, config.log_level, config.log_format)
        # One thread: many small torch calls beside a busy engine gain nothing from more.
        start = partial(Child.start, _MODULE, hello, environment={"OMP_NUM_THREADS": "1"})
        self._process = SupervisedChild(
            "preprocessing worker", start, WorkerReady, self._deliver, lambda _: self._fail_jobs()
        )
        self._jobs: dict[int, tuple[asyncio.Future[Prepared], int]] = {}

    @property
    def is_alive(self) -> bool:
        return self._process.child is not None

    @property
    def outstanding(self) -> int:
        return sum(weight for _, weight in self._jobs.values())

    async def start(self) -> WorkerReady:
        return await self._process.start()

    async def submit(self, job: Prepare) -> Prepared:
        child = self._process.child
        if child is None:
            raise EngineDeadError("the preprocessing worker is restarting; retry in a few seconds")
        future: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._jobs[job.job_id] = (future, 4096 + sum(map(len, job.images)))
        try:
            await child.send(job)
            return await future
        except asyncio.CancelledError:
            # Cancelled between the worker's answer and our waking up: nobody else knows of its pixels.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._discard(future.result())
            raise
        except ConnectionError:
            raise EngineDeadError("the preprocessing worker died; retry in a few seconds") from None
        finally:
            self._jobs.pop(job.job_id, None)

    async def stop(self) -> None:
        await self._process.stop()

    def _deliver(self, message: Message) -> None:
        if not isinstance(message, Prepared | PrepareFailed):
            return
        future, _ = self._jobs.get(message.job_id, (None, 0))
        if future is None or future.done():
            self._discard(message)
        elif isinstance(message, Prepared):
            future.set_result(message)
        else:
            future.set_exception(rebuild_error(message.kind, message.message, message.param))

    def _discard(self, message: Prepared | PrepareFailed) -> None:
        """The request was cancelled while its images were decoded: nobody else will unlink its pixels."""
        if isinstance(message, Prepared):
            unlink_segment(self._directory, message.segment)

    def _fail_jobs(self) -> None:
        for future, _ in self._jobs.values():
            if not future.done():
                future.set_exception(
                    ImageDecodeError(
                        "the process that was reading this request's images died; if it happens again with the same "
                        "image, re-encode it as PNG or JPEG"
                    )
                )
