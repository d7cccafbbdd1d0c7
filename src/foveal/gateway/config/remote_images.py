"""What happens to images that a request names by an http(s) URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from foveal.gateway.config.fields import SHORTHAND, ByteSize, Count, Port, PositiveCount, Seconds

__all__ = ["RemoteImagesConfig"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteImagesConfig:
    """The defaults protect against SSRF."""

    policy: Annotated[Literal["fetch", "pass_through", "refuse"], SHORTHAND] = "fetch"
    """fetch: the gateway downloads once and sends the bytes on; pass_through: the backend fetches; refuse: 400."""
    allow_private: bool = False
    """True lets URLs reach private networks and this machine. Only where every client is trusted."""
    allowed_domains: tuple[str, ...] = ()
    """If set, only these domains and their subdomains."""
    allowed_ports: tuple[Port, ...] = (80, 443, 8080, 8443)
    """Empty allows all ports."""
    max_bytes: ByteSize = 20 * MIB
    """Of one encoded image."""
    max_redirects: Count = 3
    timeout_s: Seconds = 10.0
    """For one image: resolving, connecting, redirects and reading."""
    max_concurrent: PositiveCount = 16
    """Downloads at the same time, over all requests."""
    cache_bytes: ByteSize = 64 * MIB
    """Fetched images kept for reuse."""
    cache_ttl_s: Seconds = 300.0
