"""An opened answer to the client: head, body, and what the headers tell of its way."""

from __future__ import annotations

from foveal.gateway.serving.call import Call
from foveal.gateway.serving.fallback import Answered
from foveal.gateway.serving.headers import answer_headers
from foveal.gateway.serving.relay import relay_stream
from foveal.gateway.serving.usage_tail import UsageTail
from foveal.gateway.wire.incoming import Incoming
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall

__all__ = ["deliver_stream", "deliver_whole"]

Header = tuple[bytes, bytes]


def deliver_whole(
    incoming: Incoming, call: Call, answered: Answered, tail: UsageTail, waterfall: Waterfall, record: ExchangeRecord
) -> None:
    answer = answered.opened.answer
    assert answer.whole is not None
    tail.feed(answer.whole)
    incoming.respond(answer.head.status, _headers(call, answered, waterfall, record), answer.whole)


async def deliver_stream(
    incoming: Incoming, call: Call, answered: Answered, tail: UsageTail, waterfall: Waterfall, record: ExchangeRecord
) -> None:
    """Raises UpstreamError, as `relay_stream`: the client then has whole events only, and the stream is open."""
    answer = answered.opened.answer
    incoming.start(answer.head.status, _headers(call, answered, waterfall, record))
    await relay_stream(answer.first, answer.response.chunks(), incoming, tail)
    incoming.finish()


def _headers(call: Call, answered: Answered, waterfall: Waterfall, record: ExchangeRecord) -> list[Header]:
    answer = answered.opened.answer
    extra: list[Header] = [(b"server-timing", waterfall.server_timing(answer.server_timing))]
    if record.served_model:
        extra.append((b"x-foveal-served-model", call.model.encode()))
    if answered.reason is not None:
        extra.append((b"x-foveal-fallback", answered.reason.value.encode()))
    return answer_headers(answer.head.headers, call.request_id, extra)
