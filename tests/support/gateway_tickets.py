"""Tickets and requests with everything that a test does not care about filled in."""

from __future__ import annotations

from itertools import count

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.pricing.price import Price
from foveal.gateway.queueing.ticket import Ticket
from foveal.gateway.request.view import ImageRef, RequestView

_numbers = count()


def ticket(
    name: str | None = None,
    *,
    tenant: str = "acme",
    priority: Priority = Priority.P1,
    cost_ms: float = 100.0,
    arrival_s: float = 0.0,
    patience_s: float = 1000.0,
    num_bytes: int = 0,
    weight: float = 1.0,
    model: str = "vlm",
    excluded: frozenset[str] = frozenset(),
) -> Ticket:
    return Ticket(
        id=f"r{next(_numbers)}" if name is None else name,
        model=model,
        tenant=tenant,
        priority=priority,
        cost_ms=cost_ms,
        arrival_s=arrival_s,
        deadline_s=arrival_s + patience_s,
        num_bytes=num_bytes,
        weight=weight,
        excluded=excluded,
    )


def request(
    *,
    model: str = "vlm",
    session_id: str | None = None,
    image: bytes | None = None,
    prefix: bytes = b"",
    num_images: int = 0,
    text_chars: int = 10,
    max_tokens: int | None = None,
    has_tools: bool = False,
) -> RequestView:
    images = (
        (ImageRef("data", 0, 0, fingerprint=image),) if image is not None else (ImageRef("data", 0, 0),) * num_images
    )
    return RequestView(
        endpoint="chat",
        model=model,
        model_start=0,
        model_end=0,
        stream=False,
        num_bytes=0,
        text_chars=text_chars,
        session_id=session_id,
        images=images,
        prefix_digest=prefix,
        max_tokens=max_tokens,
        has_tools=has_tools,
    )


def price(cost_ms: float = 100.0, prompt_tokens: int = 10) -> Price:
    return Price(prompt_tokens=prompt_tokens, output_tokens=10, cost_ms=cost_ms)


def spec(
    name: str = "a",
    *,
    model: str = "vlm",
    version: str = "1",
    max_in_flight: int = 4,
    urgent_slots: int = 0,
    port: int = 8000,
) -> BackendSpec:
    return BackendSpec(
        id=name,
        url=f"http://{name}:{port}",
        model=model,
        version=version,
        max_in_flight=max_in_flight,
        urgent_slots=urgent_slots,
    )
