"""What is known of one request through the gateway when it ends: for metrics, its span, the access log and the slow log.

Never holds any of the body: bodies and keys do not get into logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from foveal.core.priority import Priority

__all__ = ["OUTCOMES", "CacheResult", "ExchangeRecord", "Outcome"]

Outcome = Literal["success", "client_error", "limited", "shed", "timeout", "error", "aborted"]
"""Every request ends in exactly one. client_error: 4xx; limited: 429; shed: 503 by the gateway; aborted: the client left."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

CacheResult = Literal["", "hit", "miss", "joined"]
"""Empty for a request that may not be cached."""


@dataclass(slots=True)
class ExchangeRecord:
    """Filled in as the request proceeds."""

    request_id: str
    path: str = ""
    model: str = ""
    """As asked for, once it is known to exist; "" before: an unknown name must not become a label."""
    served_model: str = ""
    """The one that answered, where it is another one (fallback, smart routing)."""
    tenant: str = ""
    """Its id; "" before authentication."""
    priority: Priority = Priority.P1
    backend: str = ""
    """The id of the last one tried."""
    attempts: int = 0
    stream: bool = False
    status: int = 0
    """HTTP status sent, 0 if none was."""
    outcome: Outcome = "error"
    code: str = ""
    """The error's code (`error.code` of the body), "" on success."""
    body_bytes: int = 0
    num_images: int = 0
    priced_prompt_tokens: int = 0
    vision_tokens: int = 0
    vision_ms: float = 0.0
    cost_ms: float = 0.0
    prompt_tokens: int = 0
    """From the backend's usage; 0 if it sent none."""
    completion_tokens: int = 0
    finish_reasons: tuple[str, ...] = ()
    cache: CacheResult = ""
    traceparent: str = ""
    """Of the request's span where tracing is on: what backends get and what logs say."""
