"""Deterministic requests: an answer that is kept, one that is under way for somebody else, or a fresh one for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foveal.gateway.caching.cache_key import cache_key, flight_key, model_generation
from foveal.gateway.caching.cached_answer import CachedAnswer
from foveal.gateway.caching.determinism import CacheUse, cache_use
from foveal.gateway.caching.flight import Flight, Reader
from foveal.gateway.caching.response_cache import ResponseCache
from foveal.gateway.caching.single_flight import SingleFlight
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.serving.answering import answer_freshly
from foveal.gateway.serving.delivery import Sink
from foveal.gateway.serving.headers import answer_headers
from foveal.gateway.serving.intake import Admitted
from foveal.gateway.serving.parts import Parts
from foveal.gateway.tenancy.feedback import AnswerOrigin
from foveal.gateway.wire.incoming import Incoming
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall

__all__ = ["SharedAnswers", "generations"]

Header = tuple[bytes, bytes]
_NOT_SHARED = frozenset({b"x-request-id", b"server-timing", b"x-content-type-options"})


def generations(config: GatewayConfig) -> dict[str, bytes]:
    """Model -> what changes when other weights may answer for it, its rules and fallbacks included."""
    return {name: model_generation([config.models[one] for one in _reachable(config, name)]) for name in config.models}


def _reachable(config: GatewayConfig, name: str) -> list[str]:
    seen: list[str] = []
    todo = [name]
    while todo:
        model = todo.pop()
        if model in seen or model not in config.models:
            continue
        seen.append(model)
        entry = config.models[model]
        todo += [rule.to for rule in entry.smart] + ([entry.fallback] if entry.fallback else [])
    return seen


class SharedAnswers:
    """`generations` by model. Kept answers and flights outlive a reload, since the generation is in their keys."""

    def __init__(
        self, cache: ResponseCache, flights: SingleFlight, single_flight: bool, generations: Mapping[str, bytes]
    ) -> None:
        self._cache = cache
        self._flights = flights if single_flight else None
        self._generations = generations

    async def answer(
        self, parts: Parts, incoming: Incoming, admitted: Admitted, record: ExchangeRecord, waterfall: Waterfall
    ) -> None:
        """Raises what `answer_freshly` raises, and FlightBrokenError for a shared answer that broke off."""
        call = admitted.call
        use = cache_use(call.view, call.headers) if self._cache.enabled else _NEITHER
        if not (use.read or use.write):
            await answer_freshly(parts, incoming, admitted, record, waterfall)
            return
        key = cache_key(call.view, call.body, call.tenant, self._generations[record.model])
        if use.read:
            kept = await self._cache.find(key, call.tenant.id)
            waterfall.mark("cache")
            if kept is not None:
                _respond_kept(parts, incoming, admitted, kept, record, waterfall)
                return
        record.cache = "miss"
        if not use.read or self._flights is None:
            await self._lead(parts, incoming, admitted, record, waterfall, key, use)
            return

        async def lead(flight: Flight) -> None:
            admitted.share(incoming)
            try:
                await self._lead(parts, flight, admitted, record, waterfall, key, use)
            finally:
                admitted.close()

        async with self._flights.join(flight_key(key, call.priority), lead) as reader:
            await _read_along(reader, incoming, admitted, record, waterfall)

    async def _lead(
        self,
        parts: Parts,
        sink: Sink,
        admitted: Admitted,
        record: ExchangeRecord,
        waterfall: Waterfall,
        key: bytes,
        use: CacheUse,
    ) -> None:
        if not use.write:
            await answer_freshly(parts, sink, admitted, record, waterfall)
            return
        copy = _Copy(sink, parts.config.cache.max_answer_bytes)
        answered = await answer_freshly(parts, copy, admitted, record, waterfall)
        if copy.status == 200 and copy.complete and answered.reason is None:
            spec = answered.opened.lease.backend
            self._cache.put(
                key,
                admitted.call.tenant.id,
                copy.body(),
                copy.content_type,
                prompt_tokens=record.prompt_tokens,
                output_tokens=record.completion_tokens,
                origin=(spec.model, spec.version, spec.id),
            )


_NEITHER = CacheUse(False, False)


class _Copy:
    """Keeps what passes, up to a limit."""

    def __init__(self, sink: Sink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self.status = 0
        self.content_type = b""
        self.complete = False
        """The whole answer is here."""

    def respond(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        self._head(status, headers)
        self._keep(body)
        self.complete = self._size <= self._limit
        self._sink.respond(status, headers, body)

    def start(self, status: int, headers: Iterable[Header]) -> None:
        self._head(status, headers)
        self._sink.start(status, headers)

    async def write(self, chunk: bytes) -> None:
        self._keep(chunk)
        await self._sink.write(chunk)

    def finish(self) -> None:
        self.complete = self._size <= self._limit
        self._sink.finish()

    def body(self) -> bytes:
        return b"".join(self._chunks)

    def _head(self, status: int, headers: Iterable[Header]) -> None:
        self.status = status
        self.content_type = next((value for name, value in headers if name == b"content-type"), b"")

    def _keep(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._limit:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()


def _respond_kept(
    parts: Parts,
    incoming: Incoming,
    admitted: Admitted,
    kept: CachedAnswer,
    record: ExchangeRecord,
    waterfall: Waterfall,
) -> None:
    admitted.reservation.settle(0, 0, 0.0)
    parts.tenancy.feedback.remember(admitted.call.tenant.id, record.request_id, AnswerOrigin(*kept.origin))
    headers = [(b"content-type", kept.content_type)]
    extra = [(b"x-foveal-cache", b"hit"), (b"server-timing", waterfall.server_timing())]
    if record.served_model:
        extra.append((b"x-foveal-served-model", admitted.call.model.encode()))
    incoming.respond(200, answer_headers(headers, admitted.call.request_id, extra), kept.body)
    record.cache, record.status, record.outcome, record.code = "hit", 200, "success", ""


async def _read_along(
    reader: Reader, incoming: Incoming, admitted: Admitted, record: ExchangeRecord, waterfall: Waterfall
) -> None:
    status, shared = await reader.head()
    if reader.leads:
        headers = [*shared]
    else:
        waterfall.mark("cache")
        admitted.reservation.settle(0, 0, 0.0)
        record.cache, record.status = "joined", status
        extra = [(b"x-foveal-cache", b"joined"), (b"server-timing", waterfall.server_timing())]
        kept = [header for header in shared if header[0] not in _NOT_SHARED]
        headers = answer_headers(kept, admitted.call.request_id, extra)
    if _is_stream(shared):
        incoming.start(status, headers)
        async for chunk in reader.chunks():
            await incoming.write(chunk)
        incoming.finish()
    else:
        incoming.respond(status, headers, await reader.body())
    if not reader.leads:
        waterfall.mark("stream")
        record.outcome, record.code = ("success", "") if status < 400 else ("client_error", f"backend_{status}")


def _is_stream(headers: Iterable[Header]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
