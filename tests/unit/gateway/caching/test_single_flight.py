"""Identical requests at the same time: one asks, all read; leaving, failing and slow reading harm nobody else."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.gateway.caching.flight import Flight, FlightBrokenError, Reader
from foveal.gateway.caching.single_flight import SingleFlight

JSON = ((b"content-type", b"application/json"),)


class Backend:
    """Answers when told to. `failures` leads raise before anything is published."""

    def __init__(self, chunks: int = 3, failures: int = 0) -> None:
        self.asked = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.more = asyncio.Semaphore(0)
        self.chunks = chunks
        self.failures = failures

    async def lead(self, flight: Flight) -> None:
        self.asked += 1
        try:
            await self.go.wait()
            if self.failures:
                self.failures -= 1
                raise OSError(f"refused {self.failures}")
            flight.start(200, JSON)
            for number in range(self.chunks):
                await self.more.acquire()
                await flight.write(b"chunk %d;" % number)
            flight.finish()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def release(self) -> None:
        self.go.set()
        for _ in range(self.chunks):
            self.more.release()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def whole(reader: Reader) -> bytes:
    async with reader:
        status, headers = await reader.head()
        assert (status, headers) == (200, JSON)
        return await reader.body()


ANSWER = b"chunk 0;chunk 1;chunk 2;"


async def test_identical_requests_are_asked_once_and_all_get_the_answer() -> None:
    flights, backend = SingleFlight(), Backend()
    tasks = [asyncio.create_task(whole(flights.join(b"k", backend.lead))) for _ in range(10)]
    await settle()
    backend.release()
    assert await asyncio.gather(*tasks) == [ANSWER] * 10
    assert (backend.asked, len(flights)) == (1, 0)


async def test_different_keys_and_later_requests_are_asked_anew() -> None:
    flights, backend = SingleFlight(), Backend()
    tasks = [asyncio.create_task(whole(flights.join(key, backend.lead))) for key in (b"a", b"b")]
    await settle()
    backend.release()
    backend.release()
    await asyncio.gather(*tasks)
    backend.release()
    assert await whole(flights.join(b"a", backend.lead)) == ANSWER
    assert backend.asked == 3


async def test_a_newcomer_in_the_middle_of_a_stream_gets_it_from_its_beginning() -> None:
    flights, backend = SingleFlight(), Backend()
    first = asyncio.create_task(whole(flights.join(b"k", backend.lead)))
    backend.go.set()
    backend.more.release()
    await settle()
    second = asyncio.create_task(whole(flights.join(b"k", backend.lead)))
    backend.release()
    assert await asyncio.gather(first, second) == [ANSWER, ANSWER]
    assert backend.asked == 1


async def test_the_first_client_may_leave_and_the_others_still_get_the_answer() -> None:
    flights, backend = SingleFlight(), Backend()
    first = asyncio.create_task(whole(flights.join(b"k", backend.lead)))
    second = asyncio.create_task(whole(flights.join(b"k", backend.lead)))
    await settle()
    first.cancel()
    await settle()
    backend.release()
    assert await second == ANSWER
    assert (backend.asked, backend.cancelled) == (1, 0)


async def test_the_last_one_out_cancels_the_request_and_a_newcomer_begins_another() -> None:
    flights, backend = SingleFlight(), Backend()
    tasks = [asyncio.create_task(whole(flights.join(b"k", backend.lead))) for _ in range(2)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    newcomer = asyncio.create_task(whole(flights.join(b"k", backend.lead)))
    await settle()
    assert (backend.asked, backend.cancelled) == (2, 1)
    backend.release()
    assert await newcomer == ANSWER


async def test_nobody_joins_a_request_that_is_being_cancelled() -> None:
    flights, backend = SingleFlight(), Backend()
    async with flights.join(b"k", backend.lead):
        await settle()
    newcomer = flights.join(b"k", backend.lead)  # before the cancelled task had a chance to end
    backend.release()
    assert await asyncio.wait_for(whole(newcomer), 5) == ANSWER
    assert (backend.asked, backend.cancelled) == (2, 1)


async def test_leaving_before_the_request_began_asks_nothing_and_leaves_nothing_behind() -> None:
    flights, backend = SingleFlight(), Backend()
    async with flights.join(b"k", backend.lead):
        pass
    await settle()
    assert (backend.asked, len(flights)) == (0, 0)


async def test_a_failure_goes_to_its_owner_and_the_next_in_line_tries_alone() -> None:
    flights, backend = SingleFlight(), Backend(failures=2)
    tasks = [asyncio.create_task(whole(flights.join(b"k", backend.lead))) for _ in range(4)]
    await settle()
    backend.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError, bytes, bytes]
    assert backend.asked == 3


async def test_a_request_that_joins_after_the_last_failure_is_not_forgotten() -> None:
    flights, backend = SingleFlight(), Backend(failures=1)
    backend.release()
    first = flights.join(b"k", backend.lead)
    with pytest.raises(OSError, match="refused"):
        await first.head()
    assert await asyncio.wait_for(whole(flights.join(b"k", backend.lead)), 5) == ANSWER
    async with first:
        pass


async def test_an_answer_that_breaks_off_breaks_off_for_all() -> None:
    flights = SingleFlight()

    async def lead(flight: Flight) -> None:
        flight.start(200, JSON)
        await flight.write(b"half")
        raise OSError("died")

    tasks = [asyncio.create_task(whole(flights.join(b"k", lead))) for _ in range(3)]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, FlightBrokenError)
        assert isinstance(result.__cause__, OSError)
    assert len(flights) == 0


@pytest.mark.parametrize("ends", ["nothing", "abort"])
async def test_a_lead_that_never_finishes_its_answer_is_an_error_not_a_wait(ends: str) -> None:
    flights = SingleFlight()

    async def lead(flight: Flight) -> None:
        if ends == "abort":
            flight.start(200, JSON)
            flight.abort()

    async with flights.join(b"k", lead) as reader:
        with pytest.raises(FlightBrokenError):
            await reader.head()
            await reader.body()


async def test_a_reader_that_stops_reading_holds_up_the_source_not_the_memory() -> None:
    flights = SingleFlight(max_lag_bytes=1000)
    written = 0

    async def lead(flight: Flight) -> None:
        nonlocal written
        flight.start(200, JSON)
        for _ in range(100):
            await flight.write(b"x" * 100)
            written += 1
        flight.finish()

    async with flights.join(b"k", lead) as slow:
        await settle()
        assert written == 10
        assert len(await slow.body()) == 10_000
    assert len(flights) == 0


async def test_nobody_joins_an_answer_whose_beginning_is_gone() -> None:
    flights, leads = SingleFlight(max_lag_bytes=1000), 0

    async def lead(flight: Flight) -> None:
        nonlocal leads
        leads += 1
        flight.start(200, JSON)
        for _ in range(100):
            await flight.write(b"x" * 100)
        flight.finish()

    async with flights.join(b"k", lead) as first:
        chunks = first.chunks()
        for _ in range(50):
            await anext(chunks)
        async with flights.join(b"k", lead) as second:
            assert len(await second.body()) == 10_000
        assert leads == 2
        assert sum([len(chunk) async for chunk in chunks]) == 5_000


async def test_a_slow_reader_that_leaves_frees_the_others() -> None:
    flights = SingleFlight(max_lag_bytes=1000)

    async def lead(flight: Flight) -> None:
        flight.start(200, JSON)
        for _ in range(100):
            await flight.write(b"x" * 100)
        flight.finish()

    slow = flights.join(b"k", lead)
    fast = asyncio.create_task(whole(flights.join(b"k", lead)))
    await settle()
    assert not fast.done()
    async with slow:
        pass
    assert len(await fast) == 10_000


async def test_closing_breaks_off_what_is_under_way() -> None:
    flights, backend = SingleFlight(), Backend()
    task = asyncio.create_task(whole(flights.join(b"k", backend.lead)))
    await settle()
    await flights.close()
    with pytest.raises(FlightBrokenError):
        await task
    assert backend.cancelled == 1


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_in_any_order_of_events_every_client_ends_and_gets_all_or_an_error(seed: int) -> None:
    """Clients come and go at random while leads fail, break off or succeed."""
    asyncio.run(_chaos(random.Random(seed)))


async def _chaos(rng: random.Random) -> None:
    flights = SingleFlight(max_lag_bytes=200)

    async def lead(flight: Flight) -> None:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            raise OSError("before")
        flight.start(200, JSON)
        for number in range(3):
            await flight.write(b"chunk %d;" % number)
            await asyncio.sleep(0)
            if rng.random() < 0.05:
                raise OSError("after")
        flight.finish()

    async def client() -> bytes:
        return await whole(flights.join(rng.choice([b"a", b"b"]), lead))

    tasks = []
    for _ in range(30):
        tasks.append(asyncio.create_task(client()))
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            rng.choice(tasks).cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    for result in results:
        assert result == ANSWER or isinstance(result, OSError | FlightBrokenError | asyncio.CancelledError), result
    await settle()
    assert len(flights) == 0
