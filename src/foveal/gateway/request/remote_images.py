"""Images that a request names by an http(s) URL: fetched once and sent on as bytes, passed through, or refused.

Fetched by the gateway, a picture is checked against SSRF in one place, downloaded once for all replicas and retries, priced by
its real size, and part of cache keys by its content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import pybase64
from msgspec.structs import replace

from foveal.core.errors import (
    ForbiddenUrlError,
    ImageDecodeError,
    InvalidRequestError,
    OverloadedError,
    PayloadTooLargeError,
)
from foveal.gateway.config.remote_images import RemoteImagesConfig
from foveal.gateway.request.fetched_images import FetchedImage, FetchedImages, ImageKey
from foveal.gateway.request.fingerprint import digest_bytes
from foveal.gateway.request.image_header.image_size import image_size
from foveal.gateway.request.image_header.media_type import media_type
from foveal.gateway.request.image_header.source import BytesFile
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.request.view import ImageRef, RequestView

__all__ = ["Budget", "Fetch", "FetchOutcome", "RemoteImages", "ResolvedImages"]

Body = bytes | bytearray


class Fetch(Protocol):
    """protocol.remote_image's ImageFetcher, or a fake."""

    async def fetch(self, url: str, param: str) -> bytes: ...


class Budget(Protocol):
    """The gateway's bytes in flight."""

    def try_reserve(self, num_bytes: int) -> bool: ...

    def release(self, num_bytes: int) -> None: ...


FetchOutcome = Callable[[str], None]
"""Called with fetched, cached, refused or failed, once for each distinct image: for metrics."""


@dataclass(frozen=True, slots=True)
class ResolvedImages:
    view: RequestView
    """With size and digest of each fetched image. Places are still those of the received body."""
    replacements: tuple[tuple[int, int, bytes], ...]
    """(start, end, data URL) for the forwarded body."""
    claimed_bytes: int
    """Taken from the budget; the caller releases them when the request is over."""


class RemoteImages:
    def __init__(
        self,
        config: RemoteImagesConfig,
        limits: RequestLimits,
        fetcher: Fetch,
        now_s: Callable[[], float],
        on_outcome: FetchOutcome = lambda outcome: None,
    ) -> None:
        self._config = config
        self._limits = limits
        self._fetcher = fetcher
        self._now_s = now_s
        self._on_outcome = on_outcome
        self._kept = FetchedImages(config.cache_bytes, config.cache_ttl_s)
        self._fetching: dict[ImageKey, asyncio.Task[FetchedImage]] = {}

    def concerns(self, view: RequestView) -> bool:
        """False for nearly all requests: then there is nothing to await."""
        if self._config.policy == "pass_through":
            return False
        return view.other_urls or any(image.kind == "remote" for image in view.images)

    async def resolve(self, view: RequestView, body: Body, budget: Budget, tenant_id: str) -> ResolvedImages:
        """Fetches all remote images of the request at the same time.

        Raises ForbiddenUrlError, ImageFetchError, ImageDecodeError, PayloadTooLargeError, each naming the field, and
        OverloadedError if there is no room for the bytes. Then nothing stays claimed.
        """
        if not self.concerns(view):
            return ResolvedImages(view, (), 0)
        self._check_policy(view)
        urls = {image: _url(image, body) for image in view.images if image.kind == "remote"}
        claimed = 0

        async def claim(url: str, param: str) -> FetchedImage:
            """As soon as the image is there: it waits for the slowest of the others, perhaps for long."""
            nonlocal claimed
            fetched = await self._one((tenant_id, url), param)
            if not budget.try_reserve(len(fetched.data_url)):
                raise OverloadedError(
                    f"there is no room for a fetched image of {fetched.num_bytes:,} bytes; try again in a moment, or "
                    "raise listen.max_bytes_in_flight"
                )
            claimed += len(fetched.data_url)
            return fetched

        try:
            wanted = {url: image.param for image, url in reversed(urls.items())}
            found = dict(zip(wanted, await _all([claim(*one) for one in wanted.items()]), strict=True))
        except BaseException:
            if claimed:
                budget.release(claimed)
            raise
        images = tuple(_filled(image, found[urls[image]]) if image in urls else image for image in view.images)
        replacements = tuple((image.start, image.end, found[url].data_url) for image, url in urls.items())
        return ResolvedImages(replace(view, images=images), replacements, claimed)

    def _check_policy(self, view: RequestView) -> None:
        if self._config.policy == "refuse" or view.other_urls:
            self._on_outcome("refused")
            if view.other_urls:
                raise ForbiddenUrlError(
                    "the request names video or audio by a URL; only images are fetched. Send it as a data URL, or set "
                    "remote_images: pass_through",
                    param="messages",
                )
            param = next(image.param for image in view.images if image.kind == "remote")
            raise ForbiddenUrlError(
                f"{param}: image URLs are switched off here; send the image as a data URL", param=param
            )

    async def _one(self, key: ImageKey, param: str) -> FetchedImage:
        kept = self._kept.get(key, self._now_s())
        if kept is not None:
            self._on_outcome("cached")
            return kept
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.ensure_future(self._download(key, param))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        # Shielded: a client that leaves does not take the picture away from others that wait for it.
        return await asyncio.shield(task)

    def _done(self, key: ImageKey, task: asyncio.Task[FetchedImage]) -> None:
        self._fetching.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, even if all who waited are gone

    async def _download(self, key: ImageKey, param: str) -> FetchedImage:
        try:
            image = self._checked(await self._fetcher.fetch(key[1], param), param)
        except ForbiddenUrlError:
            self._on_outcome("refused")
            raise
        except (InvalidRequestError, PayloadTooLargeError):
            self._on_outcome("failed")
            raise
        self._on_outcome("fetched")
        self._kept.put(key, image, self._now_s())
        return image

    def _checked(self, data: bytes, param: str) -> FetchedImage:
        """Nothing but a picture goes on to a backend: what else an address holds is nobody's business."""
        size = image_size(BytesFile(data))
        if size is None:
            raise ImageDecodeError(
                f"{param}: the URL holds no picture that can be read; send JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF",
                param=param,
            )
        width, height = size
        if width * height > self._limits.max_image_pixels:
            raise PayloadTooLargeError(
                f"{param} has {width:,} x {height:,} pixels; the limit is {self._limits.max_image_pixels:,} in all. Send a "
                "smaller image",
                param=param,
            )
        text = b"data:%b;base64,%b" % (media_type(data).encode(), pybase64.b64encode(data))
        return FetchedImage(text, width, height, len(data), digest_bytes(data))


async def _all(fetches: list[Coroutine[Any, Any, FetchedImage]]) -> list[FetchedImage]:
    if len(fetches) == 1:
        return [await fetches[0]]
    tasks = [asyncio.ensure_future(fetch) for fetch in fetches]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:  # after a failure the others are of no use
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _url(image: ImageRef, body: Body) -> str:
    try:
        return str(msgspec.json.decode(b'"%b"' % bytes(body[image.start : image.end]), type=str)).strip()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{image.param} is not valid JSON text: {error}", param=image.param) from error


def _filled(image: ImageRef, found: FetchedImage) -> ImageRef:
    return replace(
        image,
        width=found.width,
        height=found.height,
        num_bytes=found.num_bytes,
        digest=found.digest,
        fingerprint=found.digest[:8],
    )
