"""Which requests have one right answer, so that it may be kept and shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foveal.gateway.request.view import RequestView

__all__ = ["CacheUse", "cache_use", "is_deterministic"]


def is_deterministic(view: RequestView) -> bool:
    """Temperature 0 or a seed, and nothing that can change behind our back: an image by URL counts only once its bytes
    were fetched and hashed, other media by URL never."""
    if not (view.temperature == 0 or view.seed is not None) or view.other_urls:
        return False
    return all(image.kind == "data" or image.digest for image in view.images)


@dataclass(frozen=True, slots=True)
class CacheUse:
    read: bool
    write: bool


_BOTH = CacheUse(True, True)
_NEITHER = CacheUse(False, False)
_REFRESH = CacheUse(False, True)


def cache_use(view: RequestView, headers: Mapping[bytes, bytes]) -> CacheUse:
    """What the request allows; `Cache-Control: no-store` keeps out of the cache, `no-cache` asks anew and stores.

    `headers` by lower-case name. Source: RFC 9111, section 5.2.1.
    """
    if not is_deterministic(view):
        return _NEITHER
    control = headers.get(b"cache-control")
    if control is None:
        return _BOTH
    directives = {part.strip().lower() for part in control.split(b",")}
    if b"no-store" in directives:
        return _NEITHER
    return _REFRESH if directives & {b"no-cache", b"max-age=0"} else _BOTH
