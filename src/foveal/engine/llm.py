"""The offline API: a list of prompts in, a list of finished answers out. The same engine as under the server."""

from __future__ import annotations

import asyncio
import atexit
import io
import threading
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foveal.core.errors import InvalidRequestError
from foveal.core.sampling_params import SamplingParams
from foveal.engine.api import GenerationRequest
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.choice_collector import ChoiceCollector
from foveal.engine.config import EngineConfig
from foveal.engine.outputs import CompletionOutput, RequestMetrics, Usage

__all__ = ["LLM", "ImageSource", "RequestResult"]

ImageSource = str | Path | bytes | Image.Image
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestResult:
    """A finished request; `outputs` has one entry per choice, in order."""

    outputs: tuple[CompletionOutput, ...]
    usage: Usage
    metrics: RequestMetrics

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.outputs[0].text


class LLM:
    """Load a model and answer batches of prompts.

    >>> llm = LLM("path/to/model")                                              # doctest: +SKIP
    >>> llm.chat([{"role": "user", "content": "Hello"}])[0].text                # doctest: +SKIP
    >>> llm.ask("What color is the circle?", images=["circle.png"]).text        # doctest: +SKIP

    Keyword arguments are EngineConfig's. Use it as a context manager, or call `close()`, to end its processes.
    """

    def __init__(self, model: str | Path, **config: Any) -> None:
        self._engine = AsyncEngine(EngineConfig(model=str(model), **config))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="foveal-llm", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self._run(self._engine.start())
        except BaseException:
            self._stop_loop()
            raise
        atexit.register(self.close)

    @property
    def config(self) -> EngineConfig:
        return self._engine.config

    @property
    def engine(self) -> AsyncEngine:
        return self._engine

    def generate(
        self,
        prompts: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = True,
    ) -> list[RequestResult]:
        """Complete raw prompts: strings, or {"prompt": str, "images": [...]} / {"prompt_token_ids": [...]} mappings.

        Results are in the order of the prompts. Raises the first RequestError; the other requests are aborted then.
        """
        batch = [prompts] if isinstance(prompts, str | Mapping) else list(prompts)
        items = [{"prompt": p} if isinstance(p, str) else dict(p) for p in batch]
        return self._run_batch(items, sampling, progress)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        sampling: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = True,
    ) -> list[RequestResult]:
        """Answer one conversation, or several. An image part is {"type": "image", "image": path, bytes or PIL image}."""
        one = bool(messages) and isinstance(messages[0], Mapping)
        conversations: Sequence[Any] = [messages] if one else messages
        return self._run_batch([_split_images(c) for c in conversations], sampling, progress)

    def ask(
        self, question: str, images: Sequence[ImageSource] = (), sampling: SamplingParams | None = None
    ) -> RequestResult:
        """One question about some pictures."""
        content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": question}]
        return self.chat([{"role": "user", "content": content}], sampling, progress=False)[0]

    def close(self) -> None:
        """End the engine's processes. Idempotent."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            self._run(self._engine.stop())
            self._stop_loop()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run_batch(
        self,
        items: Sequence[dict[str, Any]],
        sampling: SamplingParams | Sequence[SamplingParams] | None,
        progress: bool,
    ) -> list[RequestResult]:
        if isinstance(sampling, SamplingParams) or sampling is None:
            per_item = [sampling or SamplingParams(temperature=0.0, max_tokens=256)] * len(items)
        else:
            per_item = list(sampling)
        if len(per_item) != len(items):
            raise InvalidRequestError(
                f"{len(items)} prompts but {len(per_item)} sampling parameters; give one per prompt"
            )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not progress, transient=True) as bar:
            task = bar.add_task("Answering", total=len(items))
            return self._run(self._answer_all(items, per_item, lambda: bar.advance(task)))

    async def _answer_all(
        self, items: Sequence[dict[str, Any]], sampling: Sequence[SamplingParams], advance: Any
    ) -> list[RequestResult]:
        # The engine refuses more than max_waiting; ask for no more than it can hold.
        gate = asyncio.Semaphore(min(self.config.max_waiting, 4 * self.config.max_num_seqs))

        async def answer(item: dict[str, Any], params: SamplingParams) -> RequestResult:
            async with gate:
                result = await self._answer(item, params)
            advance()
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(i, p)) for i, p in zip(items, sampling, strict=True)]
        return [task.result() for task in tasks]

    async def _answer(self, item: dict[str, Any], params: SamplingParams) -> RequestResult:
        collector = ChoiceCollector(params.n)
        request = GenerationRequest(
            request_id=uuid.uuid4().hex,
            sampling=params,
            messages=item.get("messages"),
            prompt=item.get("prompt"),
            prompt_token_ids=item.get("prompt_token_ids"),
            images=[_image_bytes(image) for image in item.get("images", ())],
        )
        async for output in self._engine.generate(request):
            collector.add(output)
        return RequestResult(collector.outputs(), collector.usage, collector.metrics)


def _split_images(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Take the pictures out of the messages: the k-th image part belongs to the k-th picture."""
    images: list[ImageSource] = []
    plain = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str) and content is not None:
            parts = []
            for part in content:
                if part.get("type") == "image":
                    if "image" not in part:
                        raise InvalidRequestError(
                            'an image part needs {"type": "image", "image": path, bytes or PIL image}'
                        )
                    images.append(part["image"])
                    parts.append({"type": "image"})
                else:
                    parts.append(dict(part))
            content = parts
        plain.append({**message, "content": content})
    return {"messages": plain, "images": images}


def _image_bytes(image: ImageSource) -> bytes:
    """Raises InvalidRequestError if a path cannot be read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"cannot read image {image!s}: {error.strerror}; check the path") from None
