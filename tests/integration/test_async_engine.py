"""The engine with all its processes, on a tiny checkpoint."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from foveal.core.errors import (
    EngineDeadError,
    ImageDecodeError,
    InvalidRequestError,
    PayloadTooLargeError,
    PromptTooLongError,
    RequestTimeoutError,
    TooManyImagesError,
)
from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.api import GenerationRequest
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.choice_collector import ChoiceCollector
from foveal.engine.config import EngineConfig
from foveal.engine.outputs import CompletionOutput
from support.tiny_models import NUM_NEW_TOKENS, tiny_cases, tiny_checkpoint, tiny_image

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ids = itertools.count()
_CONFIG: dict[str, Any] = {
    "num_kv_blocks": 600,
    "block_size": 4,
    "num_threads": 1,
    "preprocess_workers": 1,
    "max_images_per_request": 4,
    "max_image_pixels": 1_000_000,
    "max_num_batched_tokens": 64,
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[AsyncEngine]:
    async with AsyncEngine(EngineConfig(model=str(tiny_checkpoint("llava")), **_CONFIG)) as running:
        yield running


def _png(seed: int = 0, size: tuple[int, int] = (40, 28)) -> bytes:
    buffer = io.BytesIO()
    tiny_image(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


def _request(
    text: str = "hello", images: int = 0, *, timeout_s: float | None = None, **sampling: Any
) -> GenerationRequest:
    params = SamplingParams(**({"max_tokens": 8, "temperature": 0.0, "ignore_eos": True} | sampling))
    content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return GenerationRequest(
        f"r{next(_ids)}",
        params,
        messages=[{"role": "user", "content": content}],
        images=[_png(k) for k in range(images)],
        timeout_s=timeout_s,
    )


def _picture(data: bytes) -> GenerationRequest:
    messages = [{"role": "user", "content": [{"type": "image"}]}]
    return GenerationRequest(f"r{next(_ids)}", SamplingParams(), messages=messages, images=[data])


async def _answer(engine: AsyncEngine, request: GenerationRequest) -> tuple[CompletionOutput, ...]:
    collector = ChoiceCollector(request.sampling.n)
    async for output in engine.generate(request):
        collector.add(output)
    return collector.outputs()


async def _until_idle(engine: AsyncEngine) -> None:
    """An abort is one-way; a finished request behind it proves that the engine has handled it."""
    await _answer(engine, _request("after"))
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)
    assert engine.num_in_flight == 0


def _segments(engine: AsyncEngine) -> list[Path]:
    assert engine._directory is not None
    return list(engine._directory.iterdir())


async def test_answers_through_all_processes_equal_generate(engine: AsyncEngine) -> None:
    for case in tiny_cases("llava"):
        buffers = [io.BytesIO() for _ in case.images]
        for image, buffer in zip(case.images, buffers, strict=True):
            image.save(buffer, "PNG")
        request = GenerationRequest(
            f"r{next(_ids)}",
            SamplingParams(max_tokens=NUM_NEW_TOKENS, temperature=0.0, ignore_eos=True),
            prompt=case.text,
            images=[buffer.getvalue() for buffer in buffers],
        )
        (choice,) = await _answer(engine, request)
        assert choice.token_ids == case.expected
        assert choice.finish_reason == "length"


async def test_closing_a_stream_early_frees_everything(engine: AsyncEngine) -> None:
    stream = engine.generate(_request(images=2, max_tokens=400))
    await anext(aiter(stream))
    await stream.aclose()  # type: ignore[attr-defined]
    await _until_idle(engine)
    assert not _segments(engine)


async def test_cancelling_while_images_are_read_frees_everything(engine: AsyncEngine) -> None:
    tasks = [asyncio.create_task(_answer(engine, _request(images=4))) for _ in range(4)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _until_idle(engine)
    assert not _segments(engine)


async def test_random_disconnects_leak_nothing(engine: AsyncEngine) -> None:
    choose = random.Random(0)

    async def visit() -> None:
        request = _request(
            str(choose.random()), choose.choice((0, 0, 1, 3)), max_tokens=choose.randint(1, 40), n=choose.choice((1, 3))
        )
        stream = engine.generate(request)
        leave_after = choose.choice((0, 1, 3, 1000))
        try:
            async with asyncio.timeout(0.005 if leave_after == 0 else None):
                async for _ in stream:
                    leave_after -= 1
                    if leave_after == 0:
                        break
        except TimeoutError:
            pass
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    for _ in range(10):
        await asyncio.gather(*(visit() for _ in range(10)))
    await _until_idle(engine)
    assert not _segments(engine)


async def test_sampling_is_repeatable_by_seed_whatever_else_runs(engine: AsyncEngine) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "seed": 7, "max_tokens": 12}
    (alone,) = await _answer(engine, _request("same", **options))
    answers = await asyncio.gather(
        *(_answer(engine, _request(f"noise {k}", temperature=1.0, max_tokens=20)) for k in range(6)),
        _answer(engine, _request("same", **options)),
    )
    assert answers[-1][0].token_ids == alone.token_ids


async def test_a_stop_string_ends_the_choice_and_never_leaks(engine: AsyncEngine) -> None:
    (plain,) = await _answer(engine, _request("stop here", max_tokens=30))
    stop = plain.text[4:6]
    (stopped,) = await _answer(engine, _request("stop here", max_tokens=30, stop=(stop,)))
    assert stopped.text == plain.text[: plain.text.index(stop)]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    await _until_idle(engine)


async def test_a_json_schema_is_followed(engine: AsyncEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    request = _request(
        "json",
        images=1,
        max_tokens=64,
        temperature=1.0,
        ignore_eos=False,
        n=2,
        guided=GuidedDecoding(json_schema=schema),
    )
    for choice in await _answer(engine, request):
        assert isinstance(json.loads(choice.text)["ok"], bool)
        assert choice.finish_reason == "stop"


async def test_an_impossible_schema_is_refused_with_its_field(engine: AsyncEngine) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await _answer(engine, _request(guided=GuidedDecoding(json_schema={"type": "no such type"})))
    assert caught.value.param == "response_format"


async def test_a_time_out_ends_a_running_request(engine: AsyncEngine) -> None:
    with pytest.raises(RequestTimeoutError, match="--request-timeout"):
        await _answer(engine, _request(max_tokens=900, timeout_s=0.2))
    await _until_idle(engine)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (lambda: _request("x" * 2000), PromptTooLongError),
        (lambda: _request(images=5), TooManyImagesError),
        (lambda: _picture(b"no"), ImageDecodeError),
        (lambda: _picture(_png()[:200]), ImageDecodeError),
        (lambda: _picture(_png(0, (2000, 1000))), PayloadTooLargeError),
        (lambda: GenerationRequest("two", SamplingParams(), prompt="a", prompt_token_ids=[1]), InvalidRequestError),
        (lambda: GenerationRequest("few", SamplingParams(), prompt="<image> a", images=[]), InvalidRequestError),
    ],
)  # fmt: skip
async def test_bad_requests_get_their_error_and_hurt_nobody(
    engine: AsyncEngine, request_: Any, error: type[Exception]
) -> None:
    good = asyncio.create_task(_answer(engine, _request("good", images=1, max_tokens=20)))
    with pytest.raises(error):
        await _answer(engine, request_())
    assert len((await good)[0].token_ids) == 20
    assert not _segments(engine)


async def test_requests_of_a_killed_engine_fail_and_the_engine_comes_back(engine: AsyncEngine) -> None:
    running = asyncio.create_task(_answer(engine, _request(max_tokens=900)))
    await _answer(engine, _request())  # the first one runs by now
    pid = engine.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDeadError, match="died"):
        await running
    async with asyncio.timeout(120):
        while not engine.is_ready:
            await asyncio.sleep(0.05)
    assert engine.engine_pid != pid
    assert len((await _answer(engine, _request()))[0].token_ids) == 8
    assert not psutil.pid_exists(pid)


async def test_a_killed_preprocessing_worker_is_replaced(engine: AsyncEngine) -> None:
    assert engine._pool is not None
    child = engine._pool._slots[0]._process.child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    async with asyncio.timeout(120):
        while True:
            try:
                await _answer(engine, _request(images=1))
                break
            except (EngineDeadError, ImageDecodeError):
                await asyncio.sleep(0.05)


async def test_stopping_leaves_no_process_and_no_file() -> None:
    engine = AsyncEngine(EngineConfig(model=str(tiny_checkpoint("llama")), **_CONFIG))
    await engine.start()
    directory, pid = engine._directory, engine.engine_pid
    assert directory is not None
    assert pid is not None
    await engine.stop()
    await engine.stop()
    assert not directory.exists()
    assert not psutil.pid_exists(pid)


async def test_a_model_that_cannot_be_loaded_is_an_error_with_the_reason(tmp_path: Path) -> None:
    from foveal.core.errors import ModelLoadError

    with pytest.raises(ModelLoadError, match=r"config\.json"):
        await AsyncEngine(EngineConfig(model=str(tmp_path), **_CONFIG)).start()
