"""What the preprocessing pool promises when requests are cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from foveal.engine.config import EngineConfig
from foveal.engine.ipc import Message, Prepare, Prepared
from foveal.engine.preprocess_pool import _Slot


class FakeChild:
    """Takes jobs and answers nothing by itself."""

    pid = 0

    async def send(self, message: Message) -> None:
        return None


def _job() -> Prepare:
    return Prepare(1, None, "text", None, [b"picture"], [], {}, True)


async def _slot_with_a_job(directory: Path) -> tuple[_Slot, asyncio.Task[Prepared]]:
    slot = _Slot(EngineConfig(model="m"), directory)
    slot._process.child = FakeChild()  # type: ignore[assignment]
    task = asyncio.create_task(slot.submit(_job()))
    await asyncio.sleep(0)
    (directory / "pixels").write_bytes(b"x")
    return slot, task


@pytest.mark.parametrize("answer_first", [True, False])
async def test_pixels_of_a_cancelled_request_are_removed_whichever_comes_first(
    tmp_path: Path, answer_first: bool
) -> None:
    slot, task = await _slot_with_a_job(tmp_path)
    answer = Prepared(1, [1], (), (), "pixels")
    if answer_first:  # the answer is there, but the waiting task has not run again yet
        slot._deliver(answer)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    else:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        slot._deliver(answer)
    assert task.cancelled()
    assert not list(tmp_path.iterdir())
    assert slot.outstanding == 0


async def test_a_request_that_is_not_cancelled_keeps_its_pixels(tmp_path: Path) -> None:
    slot, task = await _slot_with_a_job(tmp_path)
    slot._deliver(Prepared(1, [1], (), (), "pixels"))
    assert (await task).segment == "pixels"
    assert (tmp_path / "pixels").exists()
