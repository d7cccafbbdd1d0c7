"""Short requests apart from long ones."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.view import RequestView
from foveal.gateway.routing.config import LengthClass
from foveal.gateway.routing.policy import RoutingPolicy

__all__ = ["LengthClasses"]


class LengthClasses:
    """Prefers the backends of the request's class; when none of them has room, any other is better than waiting."""

    def __init__(self, classes: tuple[LengthClass, ...], inner: RoutingPolicy) -> None:
        self._classes = [(item.max_prompt_tokens, frozenset(item.backends)) for item in classes]
        self._inner = inner

    def choose(self, request: RequestView, price: Price, backends: Sequence[BackendLoad]) -> BackendLoad | None:
        wanted = self._wanted(price.prompt_tokens)
        preferred = [load for load in backends if load.spec.id in wanted]
        return self._inner.choose(request, price, preferred or backends)

    def _wanted(self, prompt_tokens: int) -> frozenset[str]:
        for max_prompt_tokens, backends in self._classes:
            if max_prompt_tokens is None or prompt_tokens <= max_prompt_tokens:
                return backends
        return frozenset()
