"""Reads a request body under limits: too large is refused before it is buffered."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope

from foveal.core.errors import InvalidRequestError, PayloadTooLargeError, RequestTimeoutError
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.limits import Lease

__all__ = ["BodyTimeoutError", "BodyTooLargeError", "ClientLeftError", "header", "read_body"]


class BodyTimeoutError(RequestTimeoutError):
    """The client was too slow, not the server: 408."""

    status = 408
    code = "body_timeout"


class BodyTooLargeError(PayloadTooLargeError):
    """Raised before the body was read to its end."""


class ClientLeftError(Exception):
    """The client closed the connection; nobody reads an answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """Value of the first header `name` (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, config: ServerConfig, lease: Lease) -> bytes:
    """The whole body, at most `config.max_body_bytes`; its size is added to `lease` before it is stored.

    Raises BodyTooLargeError (413) on Content-Length already, or as soon as a chunked body passes the limit;
    OverloadedError (503), BodyTimeoutError (408), InvalidRequestError for a compressed body, ClientLeftError.
    """
    encoding = header(scope, b"content-encoding")
    if encoding and encoding.lower() != "identity":
        raise InvalidRequestError(f"content-encoding is {encoding!r}; send the JSON uncompressed")
    declared = header(scope, b"content-length")
    # The HTTP parser has refused anything that is not a number.
    length = int(declared) if declared is not None else None
    if length is not None:
        _check_size(length, config.max_body_bytes)
        lease.grow(length)
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await _collect(receive, config.max_body_bytes, None if length is not None else lease)
    except TimeoutError:
        raise BodyTimeoutError(
            f"the body was not complete after {config.body_timeout_s:g} s; send it faster or make the images smaller"
        ) from None


async def _collect(receive: Receive, limit: int, lease: Lease | None) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk = message.get("body", b"")
        if chunk:
            size += len(chunk)
            _check_size(size, limit)
            if lease is not None:
                lease.grow(len(chunk))
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLargeError(
            f"the request body has {size:,} bytes or more; the limit is {limit:,}. Send smaller or fewer images, or raise "
            "--max-body-mib"
        )
