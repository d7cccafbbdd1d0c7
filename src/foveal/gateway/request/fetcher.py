"""The gateway's image fetcher: the one that the engine uses, with the gateway's settings and their names."""

from __future__ import annotations

from collections.abc import Callable

from foveal.gateway.config.remote_images import RemoteImagesConfig
from foveal.protocol.remote_image.address_policy import is_public_address
from foveal.protocol.remote_image.fetch_config import FetchConfig
from foveal.protocol.remote_image.image_fetcher import ImageFetcher, Resolve, system_resolve

__all__ = ["make_fetcher"]


def make_fetcher(
    config: RemoteImagesConfig,
    resolve: Resolve = system_resolve,
    is_allowed_address: Callable[[str], bool] = is_public_address,
) -> ImageFetcher:
    """Import this module only where the policy fetches: it loads an HTTP client. Tests inject the last two."""
    settings = FetchConfig(
        enabled=config.policy == "fetch",
        allow_private=config.allow_private,
        allowed_domains=config.allowed_domains,
        allowed_ports=config.allowed_ports,
        max_redirects=config.max_redirects,
        timeout_s=config.timeout_s,
        max_concurrent=config.max_concurrent,
        timeout_setting="remote_images.timeout_s",
        size_setting="remote_images.max_bytes",
    )
    return ImageFetcher(settings, config.max_bytes, resolve, is_allowed_address)
