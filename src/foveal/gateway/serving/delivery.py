"""An opened answer to the client: head, body, and what the headers tell of its way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from foveal.gateway.serving.call import Call
from foveal.gateway.serving.fallback import Answered
from foveal.gateway.serving.headers import answer_headers
from foveal.gateway.serving.relay import relay_stream
from foveal.gateway.serving.usage_tail import UsageTail
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall

__all__ = ["Sink", "deliver"]

Header = tuple[bytes, bytes]


class Sink(Protocol):
    """The answering calls of `Incoming`; a `Flight` has them, too."""

    def respond(self, status: int, headers: Iterable[Header], body: bytes) -> None: ...

    def start(self, status: int, headers: Iterable[Header]) -> None: ...

    async def write(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...


async def deliver(
    sink: Sink, call: Call, answered: Answered, tail: UsageTail, waterfall: Waterfall, record: ExchangeRecord
) -> None:
    """Raises UpstreamError, as `relay_stream`: the client then has whole events only, and the stream is open."""
    answer = answered.opened.answer
    record.status = answer.head.status
    headers = _headers(call, answered, waterfall, record)
    if answer.whole is not None:
        tail.feed_whole(answer.whole)
        sink.respond(answer.head.status, headers, answer.whole)
        return
    sink.start(answer.head.status, headers)
    await relay_stream(answer.first, answer.response.chunks(), sink, tail)
    sink.finish()


def _headers(call: Call, answered: Answered, waterfall: Waterfall, record: ExchangeRecord) -> list[Header]:
    answer = answered.opened.answer
    extra: list[Header] = [(b"server-timing", waterfall.server_timing(answer.server_timing))]
    if record.served_model:
        extra.append((b"x-foveal-served-model", call.model.encode()))
    if answered.reason is not None:
        extra.append((b"x-foveal-fallback", answered.reason.value.encode()))
    return answer_headers(answer.head.headers, call.request_id, extra)
