"""Where the list of backends comes from: the seam for autoscaling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from foveal.gateway.backends.backend import BackendSpec

__all__ = ["ReplicaSupplier", "StaticReplicas"]

OnReplicas = Callable[[tuple[BackendSpec, ...]], None]


class ReplicaSupplier(Protocol):
    """Says which backends there are, and when that changes."""

    def current(self) -> tuple[BackendSpec, ...]: ...

    def subscribe(self, on_replicas: OnReplicas) -> None:
        """Call `on_replicas` with the whole new list after each change, in the event loop's thread."""
        ...


class StaticReplicas:
    """The configuration's backends; a reload replaces them."""

    def __init__(self, specs: Sequence[BackendSpec]) -> None:
        self._specs = tuple(specs)
        self._subscribers: list[OnReplicas] = []

    def current(self) -> tuple[BackendSpec, ...]:
        return self._specs

    def subscribe(self, on_replicas: OnReplicas) -> None:
        self._subscribers.append(on_replicas)

    def replace(self, specs: Sequence[BackendSpec]) -> None:
        """Tells subscribers unless nothing changed."""
        if tuple(specs) == self._specs:
            return
        self._specs = tuple(specs)
        for on_replicas in self._subscribers:
            on_replicas(self._specs)
