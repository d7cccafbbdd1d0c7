"""A whole measurement: find the model, learn its token lengths, warm up, send the load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from foveal.core.clock import MonotonicClock
from foveal.core.errors import ConfigurationError
from foveal.evaluation.load.client import ChatClient
from foveal.evaluation.load.dataset import LoadRequest, Workload, WorkloadConfig
from foveal.evaluation.load.driver import run_closed_loop, run_open_loop
from foveal.evaluation.load.pictures import PictureSource
from foveal.evaluation.load.record import RequestRecord
from foveal.evaluation.load.words import TokenScale, random_words

__all__ = ["LoadPlan", "LoadSession"]

PROBE_WORDS = (4, 132)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to send and when. Open loop if `offsets_s` is set (one per request), else closed with `concurrency`."""

    workload: WorkloadConfig
    pictures: PictureSource | None = None
    offsets_s: Sequence[float] | None = None
    concurrency: int = 1
    num_requests: int | None = None
    duration_s: float | None = None
    warmup: int = 1
    seed: int = 0


class LoadSession:
    """One server under test."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        ignore_eos: bool = True,
        temperature: float = 0.0,
        timeout_s: float = 600.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.model = model
        """Known after the first request if it was not given."""
        self._ignore_eos = ignore_eos
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})

    async def run(self, plan: LoadPlan, on_record: Callable[[RequestRecord], None]) -> None:
        """Send everything that `plan` asks for; `on_record` gets each request as it ends, failed ones too.

        Raises ConfigurationError if the server is not there or refuses the probes.
        """
        clock = MonotonicClock()
        connector = aiohttp.TCPConnector(limit=0)
        no_limit = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=no_limit, trust_env=False) as http:
            client = await self._client(http)
            workload = Workload(plan.workload, await self._token_scale(client), plan.pictures, plan.seed)
            for _ in range(plan.warmup):
                _must_succeed(await client.send(workload.next()), "a warm-up request")
            prepared: list[LoadRequest] = []
            if plan.num_requests is not None:  # draw pictures now: later it would delay the reading of answers
                prepared = await asyncio.to_thread(lambda: [workload.next() for _ in range(plan.num_requests or 0)])
            if plan.offsets_s is not None:
                await run_open_loop(client.send, prepared, plan.offsets_s, clock, on_record)
                return
            remaining = iter(prepared)
            drawing = asyncio.Lock()

            async def next_request() -> LoadRequest:
                if plan.num_requests is not None:
                    return next(remaining)
                async with drawing:
                    return await asyncio.to_thread(workload.next)

            await run_closed_loop(
                client.send,
                next_request,
                plan.concurrency,
                clock,
                on_record,
                num_requests=plan.num_requests,
                duration_s=plan.duration_s,
            )

    async def _client(self, http: aiohttp.ClientSession) -> ChatClient:
        found = await ChatClient.find_model(http, self.url, self._headers)
        self.model = self.model or found
        return ChatClient(
            http,
            self.url,
            model=self.model,
            ignore_eos=self._ignore_eos,
            temperature=self._temperature,
            timeout_s=self._timeout_s,
            headers=self._headers,
        )

    async def _token_scale(self, client: ChatClient) -> TokenScale:
        """Two short requests tell how many tokens a word makes, and how many the chat template adds."""
        probes = []
        for words in PROBE_WORDS:
            text = random_words(words, random.Random(words))
            record = await client.send(LoadRequest(-1, [{"type": "text", "text": text}], max_tokens=1))
            _must_succeed(record, "a probe")
            probes.append((words, record.prompt_tokens))
        return TokenScale.from_probes(probes[0], probes[1])


def _must_succeed(record: RequestRecord, what: str) -> None:
    if not record.ok:
        raise ConfigurationError(
            f"{what} failed: {record.error}. Check the model's name, its context length and whether it takes images, "
            "then try again."
        )
