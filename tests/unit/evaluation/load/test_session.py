"""Whole runs against the fake server: probes, warm-up, open and closed loop."""

from __future__ import annotations

import asyncio

import pytest

from foveal.core.clock import ManualClock, MonotonicClock
from foveal.core.errors import ConfigurationError
from foveal.evaluation.load.dataset import LoadRequest, WorkloadConfig
from foveal.evaluation.load.driver import run_closed_loop, run_open_loop
from foveal.evaluation.load.pictures import PictureSource, random_pictures
from foveal.evaluation.load.record import RequestRecord
from foveal.evaluation.load.session import LoadPlan, LoadSession
from unit.evaluation.load.fake_server import FakeServer, serving

NUM_PROBES = 2


async def run(server: FakeServer, plan: LoadPlan) -> list[RequestRecord]:
    records: list[RequestRecord] = []
    async with serving(server):
        await LoadSession(server.url, timeout_s=10).run(plan, records.append)
    return records


async def test_a_closed_loop_sends_what_was_asked_for() -> None:
    server = FakeServer()
    config = WorkloadConfig(input_tokens=20, output_tokens=3, images_per_request=1)
    plan = LoadPlan(config, PictureSource(random_pictures(8, 8)), concurrency=3, num_requests=7, warmup=2)
    records = await run(server, plan)
    assert len(records) == 7
    assert all(record.ok and record.completion_tokens == 3 for record in records)
    # Text is what was asked for: the chat template's ten tokens come on top.
    assert {record.prompt_tokens for record in records} == {30}
    assert len(server.bodies) == NUM_PROBES + 2 + 7
    assert server.bodies[-1]["model"] == "fake-vlm"


async def test_an_open_loop_sends_each_request_once() -> None:
    plan = LoadPlan(WorkloadConfig(input_tokens=5, output_tokens=2), offsets_s=[0.0, 0.0, 0.01], num_requests=3)
    records = await run(FakeServer(), plan)
    assert sorted(record.index for record in records) == [1, 2, 3]
    starts = sorted(record.start_s for record in records)
    assert starts[2] - starts[0] == pytest.approx(0.01)


async def test_a_closed_loop_with_a_duration_ends() -> None:
    plan = LoadPlan(WorkloadConfig(input_tokens=5, output_tokens=1), concurrency=2, duration_s=0.1)
    assert len(await run(FakeServer(), plan)) >= 2


async def test_failures_during_the_load_are_recorded_and_do_not_end_it() -> None:
    server = FakeServer(status=503, fail_first=NUM_PROBES + 1)
    records = await run(server, LoadPlan(WorkloadConfig(input_tokens=5, output_tokens=1), num_requests=4))
    assert [record.error for record in records] == ["HTTP 503 overloaded"] * 4


async def test_a_server_that_refuses_the_probes_ends_the_run_with_a_reason() -> None:
    with pytest.raises(ConfigurationError, match="a probe failed: HTTP 400 context_length_exceeded"):
        await run(FakeServer(status=400, error_code="context_length_exceeded"), LoadPlan(WorkloadConfig()))


def request(index: int) -> LoadRequest:
    return LoadRequest(index, [], 1)


async def test_a_closed_loop_keeps_its_concurrency() -> None:
    in_flight = peak = 0

    async def send(request: LoadRequest, due_s: float | None) -> RequestRecord:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return RequestRecord(request.index, 0, 0, 0)

    async def next_request() -> LoadRequest:
        return request(0)

    records: list[RequestRecord] = []
    await run_closed_loop(send, next_request, 4, ManualClock(), records.append, num_requests=9)
    assert (peak, len(records)) == (4, 9)


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    release = asyncio.Event()
    started: list[int] = []

    async def send(request: LoadRequest, due_s: float | None) -> RequestRecord:
        started.append(request.index)
        if len(started) == 3:
            release.set()
        await release.wait()
        return RequestRecord(request.index, 0, 0, 0)

    records: list[RequestRecord] = []
    loop = run_open_loop(send, [request(i) for i in range(3)], [0.0] * 3, MonotonicClock(), records.append)
    await asyncio.wait_for(loop, 5)
    assert len(records) == 3
