"""Image parts of a request -> encoded bytes: data URLs are decoded here, http(s) URLs fetched, headers checked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

import pybase64

from foveal.core.errors import (
    ImageDecodeError,
    PayloadTooLargeError,
    RequestError,
    TooManyImagesError,
)
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.limits import Lease
from foveal.models.processing.image_decode import read_image_size
from foveal.protocol.content import ImagePart
from foveal.protocol.remote_image.image_fetcher import ImageFetcher

__all__ = ["decode_data_url", "load_images"]


async def load_images(
    parts: Sequence[tuple[str, ImagePart]], config: ServerConfig, fetcher: ImageFetcher, lease: Lease
) -> list[bytes]:
    """Encoded pictures in the order of `parts`, (request field, part) pairs. URLs are fetched at the same time.

    Only the header of each picture is read; decoding is the engine's. Raises TooManyImagesError, ImageDecodeError,
    PayloadTooLargeError (bytes or pixels), ForbiddenUrlError, ImageFetchError, each naming the part.
    """
    if len(parts) > config.max_images:
        raise TooManyImagesError(
            f"the request has {len(parts)} images; the limit is {config.max_images}. Send fewer or raise --max-images",
            param="messages",
        )
    remote = [part.url for _, part in parts if not _is_data_url(part.url)]
    if not remote:  # the usual case needs no task
        return [
            _checked(decode_data_url(part.url, config.max_image_bytes, param), config, param) for param, part in parts
        ]
    tasks = [asyncio.ensure_future(_load(part, config, fetcher, lease, param)) for param, part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        # After a failure the other downloads are of no use.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _load(part: ImagePart, config: ServerConfig, fetcher: ImageFetcher, lease: Lease, param: str) -> bytes:
    if _is_data_url(part.url):
        data = decode_data_url(part.url, config.max_image_bytes, param)
    else:
        data = await fetcher.fetch(part.url.strip(), param)
        lease.grow(len(data))
    return _checked(data, config, param)


def decode_data_url(url: str, max_bytes: int, param: str) -> bytes:
    """`data:[<type>][;base64],<data>` -> bytes. The size is checked before decoding.

    The declared type is not believed: the bytes decide. Raises ImageDecodeError, PayloadTooLargeError.
    """
    head, comma, payload = url.partition(",")
    if not comma:
        raise ImageDecodeError(f"{param} is a data URL without a comma; write data:image/png;base64,...", param=param)
    is_base64 = head.lower().endswith(";base64")
    # Four characters hold three bytes; a percent-encoded byte is three characters, a plain one is one.
    least_bytes = len(payload) // 4 * 3 - 2 if is_base64 else len(payload) // 3
    if least_bytes > max_bytes:
        raise _too_large(least_bytes, max_bytes, param)
    if not is_base64:
        data = unquote_to_bytes(payload)
    else:
        try:
            data = pybase64.b64decode(payload, validate=True)
        except ValueError:
            data = _lenient_base64(payload, param)
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes, param)
    return data


def _lenient_base64(payload: str, param: str) -> bytes:
    """Line breaks, percent-encoding, the URL-safe alphabet and missing padding, as some clients send."""
    try:
        compact = b"".join(unquote_to_bytes(payload).split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return pybase64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (ValueError, UnicodeError) as error:
        raise ImageDecodeError(f"{param} is not valid base64: {error}; encode the file again", param=param) from error


def _checked(data: bytes, config: ServerConfig, param: str) -> bytes:
    try:
        read_image_size(data, max_pixels=config.max_image_pixels)
    except RequestError as error:
        error.param = param
        raise
    return data


def _is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def _too_large(size: int, limit: int, param: str) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"{param} has {size:,} bytes or more; the limit is {limit:,}. Send a smaller image or raise --max-image-mib",
        param=param,
    )
