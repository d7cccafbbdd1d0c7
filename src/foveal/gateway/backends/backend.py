"""An OpenAI server behind the gateway: what the operator says of it, and what is known of it now."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["BackendLoad", "BackendSpec", "BackendState"]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One process. Replicas of one model version are several specs with equal `model` and `version`."""

    id: str
    url: str
    """http://host:port, without a path."""
    model: str
    """The name clients use."""
    version: str = "1"
    served_name: str | None = None
    """The name the backend itself uses, where it differs: it is spliced into the body."""
    max_in_flight: int = 32
    """Requests beyond it wait in the gateway's queue, so that queueing happens in one place."""
    api_key: str | None = None


class BackendState(enum.Enum):
    STARTING = "starting"
    """Not yet seen healthy."""
    UP = "up"
    RETURNING = "returning"
    """Was ejected; gets a slowly growing share."""
    EJECTED = "ejected"
    DRAINING = "draining"
    """Removed from the configuration or told to stop: finishes what it has."""


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """A snapshot for routing decisions."""

    spec: BackendSpec
    state: BackendState
    in_flight: int = 0
    outstanding_ms: float = 0.0
    """Sum of the prices (cost_ms) of what is in flight there."""
    share: float = 1.0
    """Fraction of its capacity it may use now, below 1 while RETURNING."""
