"""Asks a backend whether it is well, and once after each start what it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.resilience.config import HealthConfig
from foveal.gateway.wire.upstream import UpstreamClient, UpstreamError, UpstreamTimeouts

__all__ = ["BackendFacts", "HealthProbe"]

_MAX_PAGE_BYTES = 1 << 20
_ALIVE = frozenset({200, 204, 404, 405})
"""A server without such a page is well enough to say so."""


class BackendFacts(msgspec.Struct):
    """What a backend says of a model in /v1/models; fields of our engine and vLLM."""

    id: str
    created: int | UnsetType = UNSET
    root: str | UnsetType | None = UNSET
    parent: str | UnsetType | None = UNSET
    max_model_len: int | UnsetType | None = UNSET
    supports_images: bool | UnsetType | None = UNSET


class _Page(msgspec.Struct):
    data: list[BackendFacts]


_decoder = msgspec.json.Decoder(_Page)


class HealthProbe:
    """A `Probe` for HealthChecker."""

    def __init__(
        self, client: UpstreamClient, config: HealthConfig, publish: Callable[[str, bytes, str], bool]
    ) -> None:
        """`publish(model, page, served_name)` gets the /v1/models page when a backend comes up."""
        self._client = client
        self._publish = publish
        self.reload(config)
        self._known: set[tuple[str, str]] = set()
        self.facts: dict[str, BackendFacts] = {}
        """By the model's name in the configuration."""

    def reload(self, config: HealthConfig) -> None:
        self._path = config.path
        self._timeouts = UpstreamTimeouts(config.timeout_s, config.timeout_s, config.timeout_s)

    async def __call__(self, spec: BackendSpec) -> bool:
        """Raises UpstreamError."""
        key = (spec.id, spec.url)
        try:
            status, _ = await self._get(spec, self._path)
        except BaseException:
            self._known.discard(key)
            raise
        if status not in _ALIVE:
            self._known.discard(key)
            return False
        if key not in self._known:
            self._known.add(key)
            await self._learn(spec)
        return True

    async def _learn(self, spec: BackendSpec) -> None:
        """A backend that does not say what it serves may serve nevertheless."""
        served_name = spec.served_name or spec.model
        try:
            status, page = await self._get(spec, "/v1/models")
            if status == 200:
                self._publish(spec.model, page, served_name)
                known = next((facts for facts in _decoder.decode(page).data if facts.id == served_name), None)
                if known is not None:
                    self.facts[spec.model] = known
        except (UpstreamError, msgspec.MsgspecError):
            return

    async def _get(self, spec: BackendSpec, path: str) -> tuple[int, bytes]:
        headers: Sequence[tuple[bytes, bytes]] = [(b"accept", b"application/json")]
        if spec.api_key is not None:
            headers = [*headers, (b"authorization", b"Bearer " + spec.api_key.encode())]
        response = await self._client.send(spec, "GET", path, headers, [], self._timeouts)
        try:
            page = b""
            async for chunk in response.chunks():
                page += chunk
                if len(page) > _MAX_PAGE_BYTES:
                    raise UpstreamError(f"{path} of backend {spec.id} has over {_MAX_PAGE_BYTES} bytes", "protocol")
            return response.head.status, page
        finally:
            await response.close()
