"""Calls for tests of the gateway, with as little said as the test needs."""

from __future__ import annotations

import itertools
import json
from typing import Any

from foveal.core.priority import Priority
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView
from foveal.gateway.serving.call import Call
from foveal.gateway.tenancy.tenant import ANONYMOUS, Tenant
from foveal.gateway.wire.upstream import UpstreamTimeouts

__all__ = ["make_call"]

_numbers = itertools.count()


def make_call(
    model: str = "vlm",
    *,
    stream: bool = False,
    priority: Priority = Priority.P1,
    tenant: Tenant = ANONYMOUS,
    cost_ms: float = 100.0,
    arrival_s: float = 0.0,
    timeouts: UpstreamTimeouts | None = None,
    **fields: Any,
) -> Call:
    """A chat request with one short message; `fields` go into its body."""
    message = {"role": "user", "content": "hi"}
    body = bytearray(json.dumps({"model": model, "messages": [message], "stream": stream, **fields}).encode())
    start = body.index(b'"model": "') + len(b'"model": "')
    view = RequestView("chat", model, start, start + len(model), stream, len(body), text_chars=2)
    number = next(_numbers)
    return Call(
        id=f"call-{number}",
        request_id=f"call-{number}".encode(),
        path="/v1/chat/completions",
        headers={b"content-type": b"application/json"},
        body=body,
        view=view,
        tenant=tenant,
        priority=priority,
        price=Price(10, 10, cost_ms),
        model=model,
        timeouts=timeouts or UpstreamTimeouts(),
        arrival_s=arrival_s,
        deadline_s=arrival_s + 600.0,
    )
