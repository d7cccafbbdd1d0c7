"""Around every request: its id, the API key, one log line, and every exception turned into an error body.

The one place that decides how an error leaves: as a status and a body before the first byte, as an error event after it.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveal.core.errors import EngineDeadError, OverloadedError, RequestError, UnauthorizedError
from foveal.engine.server.body import BodyTimeoutError, BodyTooLargeError, ClientLeftError, header
from foveal.engine.server.context import ServerContext
from foveal.observability.logs import get_logger
from foveal.protocol.error_body import error_status, to_error_body
from foveal.protocol.sse import SSE_CONTENT_TYPE, event

__all__ = ["RequestMiddleware", "error_response"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_LINGER_S = 10.0
_LINGER_BYTES = 512 << 20

_log = get_logger("foveal.server")


class RequestMiddleware:
    """ASGI middleware; passes anything but HTTP through."""

    def __init__(self, app: ASGIApp, context: ServerContext) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(send, self._request_id(scope))
        started_s = self._context.clock.now_s()
        try:
            self._check_key(scope)
            await self._app(scope, receive, response.send)
        except ClientLeftError:
            self._context.recorder.aborted()
            response.status = 499  # nginx's number for it; nobody receives it
        except Exception as error:
            await self._report(error, response, receive)
        if self._context.config.access_log:
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=response.status,
                duration_ms=round((self._context.clock.now_s() - started_s) * 1000, 2),
                request_id=response.request_id,
            )

    def _request_id(self, scope: Scope) -> str:
        given = header(scope, b"x-request-id")
        # One that could break logs or headers is replaced, not refused.
        return given if given and _REQUEST_ID.fullmatch(given) else "req-" + self._context.new_id()

    def _check_key(self, scope: Scope) -> None:
        key = self._context.config.api_key
        if key is None or not scope["path"].startswith("/v1"):
            return
        given = (header(scope, b"authorization") or "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise UnauthorizedError("the API key is missing or wrong; send the header Authorization: Bearer KEY")

    async def _report(self, error: Exception, response: _Response, receive: Receive) -> None:
        body = to_error_body(error)
        self._context.recorder.error(body.error.code or "internal_error")
        if not isinstance(error, RequestError | EngineDeadError):
            _log.error("unexpected error", request_id=response.request_id, exc_info=error)
        if response.complete:
            return
        if response.status is None:
            await error_response(error, response.send, receive)
        elif response.is_stream:
            await response.send({"type": "http.response.body", "body": event(body), "more_body": False})
        else:
            # Half an answer cannot be repaired: let the server close the connection.
            raise error


async def error_response(error: BaseException, send: Send, receive: Receive) -> None:
    """A status, headers and a body for `error`; a body that is still coming in is read and dropped."""
    body = msgspec.json.encode(to_error_body(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, OverloadedError):
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    elif isinstance(error, EngineDeadError):
        headers.append((b"retry-after", b"5"))
    elif isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    lingers = isinstance(error, BodyTooLargeError)
    if lingers or isinstance(error, BodyTimeoutError):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error_status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": lingers})
    if lingers:
        await _drop_body(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drop_body(receive: Receive) -> None:
    """Closing at once would reset the connection, and a client that is still sending would not see the answer."""
    dropped = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while dropped < _LINGER_BYTES:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


class _Response:
    """Follows what was sent, and adds the request id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None
        self.is_stream = False
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            self.is_stream = (b"content-type", SSE_CONTENT_TYPE.encode()) in headers
            message = {**message, "headers": [*headers, (b"x-request-id", self.request_id.encode())]}
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)
