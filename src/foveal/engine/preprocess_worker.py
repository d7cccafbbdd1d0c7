"""A child process that turns messages and picture files into token ids and pixels.

A process, not a thread: decoding and resizing hold the GIL often enough to stall every stream of the front end.
Run as `python -m foveal.engine.preprocess_worker FD`.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

from foveal.core.errors import InvalidRequestError
from foveal.engine.ipc import (
    FramedSocket,
    Prepare,
    Prepared,
    PrepareFailed,
    StartFailed,
    StartWorker,
    WorkerReady,
)
from foveal.engine.remote_error import describe_error
from foveal.engine.segments import write_segment
from foveal.observability.logs import configure_logging

__all__ = ["main"]


def main(fd: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = FramedSocket.from_fd(fd)
    hello = link.receive()
    if not isinstance(hello, StartWorker):
        return 1
    configure_logging(hello.log_level, hello.log_format)
    try:
        worker = PreprocessWorker(hello)
        link.send(WorkerReady(worker.processor.tokenizer.backend_tokenizer.to_str(), worker.processor.vision_facts))
    except Exception as error:
        kind, message, _ = describe_error(error)
        link.send(StartFailed(kind, message))
        return 1
    while (message := link.receive()) is not None:
        if isinstance(message, Prepare):
            link.send(worker.answer(message))
    return 0


class PreprocessWorker:
    """Holds one processor; stateless between jobs."""

    def __init__(self, hello: StartWorker) -> None:
        # Imported here: the transformers import takes seconds, and only this process needs it.
        from foveal.models.loading import load_processor

        self.processor = load_processor(hello.model)
        self._directory = Path(hello.segment_directory)
        self._max_image_pixels = hello.max_image_pixels

    def answer(self, job: Prepare) -> Prepared | PrepareFailed:
        try:
            return self._prepare(job)
        except Exception as error:
            kind, text, param = describe_error(error)
            return PrepareFailed(job.job_id, kind, text, param)

    def _prepare(self, job: Prepare) -> Prepared:
        from foveal.models.processing.image_decode import decode_image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata that it then copes with
            images = [decode_image(data, max_pixels=self._max_image_pixels) for data in job.images]
        if job.messages is not None:
            text: str | list[int] = self.processor.apply_chat_template(
                job.messages, add_generation_prompt=job.add_generation_prompt, **job.chat_template_kwargs
            )
        elif job.prompt is not None:
            text = job.prompt
        elif job.token_ids is not None:
            text = job.token_ids
        else:
            raise InvalidRequestError("a request needs messages, a prompt or token ids")
        prompt = self.processor.prepare(text, images, job.details)
        segment, packed = write_segment(self._directory, prompt.images)
        return Prepared(
            job.job_id,
            list(prompt.token_ids),
            packed,
            prompt.spans,
            segment,
        )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(int(sys.argv[1])))
