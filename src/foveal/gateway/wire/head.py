"""The head of a request: parsed by httptools (llhttp, strict), then checked for everything that smuggles a second request."""

from __future__ import annotations

import httptools

__all__ = ["HeadError", "HeadReader", "RequestHead"]

_SINGLE = frozenset(
    (b"content-length", b"transfer-encoding", b"host", b"authorization", b"content-type", b"expect", b"x-api-key")
)
"""Fields that say something else to whoever takes the other copy."""


class HeadError(Exception):
    """A head that is refused: `status` and words for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestHead:
    """Plain slots: made once per request."""

    __slots__ = ("chunked", "expects_continue", "headers", "keep_alive", "length", "method", "minor", "path", "query")

    method: bytes
    path: bytes
    query: bytes
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    headers: dict[bytes, bytes]
    length: int
    """Content-Length; 0 if there is none."""
    chunked: bool
    keep_alive: bool
    expects_continue: bool


class HeadReader:
    """Reads one head after the other. The parser gets exactly a head, never a byte of a body: those are not its business."""

    __slots__ = ("_complete", "_headers", "_max_headers", "_target")

    def __init__(self, max_headers: int) -> None:
        self._max_headers = max_headers
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._complete = False

    # Called by the parser.
    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in _SINGLE:
                raise HeadError(400, f"the field {name.decode('latin-1')} was sent twice; send it once")
            headers[name] += b", " + value
            return
        if len(headers) >= self._max_headers:
            raise HeadError(431, f"more than {self._max_headers} header fields; send fewer")
        headers[name] = value

    def on_headers_complete(self) -> None:
        self._complete = True

    def read(self, head: memoryview) -> RequestHead:
        """`head` ends with the empty line. Raises HeadError."""
        self._target = b""
        self._headers = {}
        self._complete = False
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # An offer (WebSocket, h2c) that we need not take: the request is answered as it is.
            pass
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, HeadError):
                raise cause from None
            raise HeadError(400, "the request head cannot be read") from None
        except httptools.HttpParserError as error:
            raise HeadError(400, f"the request is not HTTP/1.1: {error}") from None
        return self._checked(parser)

    def _checked(self, parser: httptools.HttpRequestParser) -> RequestHead:
        if not self._complete:
            raise HeadError(400, "the request head is incomplete")
        headers = self._headers
        head = RequestHead()
        head.method = parser.get_method()
        head.headers = headers
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise HeadError(505, f"HTTP/{version} is not spoken here; use HTTP/1.1")
        head.minor = 1 if version == "1.1" else 0
        target = self._target
        if not target.startswith(b"/"):
            target = _origin_form(target)
        path, _, head.query = target.partition(b"?")
        head.path = path
        head.chunked = False
        head.length = 0
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if coding is not None:
            if length is not None:
                raise HeadError(400, "both Content-Length and Transfer-Encoding were sent; send one of them")
            if coding.strip().lower() != b"chunked" or head.minor == 0:
                raise HeadError(
                    501, "this transfer coding is not supported; send a Content-Length, or chunked over HTTP/1.1"
                )
            head.chunked = True
        elif length is not None:
            length = length.strip(b" \t")
            if not length.isdigit() or len(length) > 15:
                raise HeadError(400, "Content-Length is not a plain number of bytes")
            head.length = int(length)
        if head.minor == 1 and b"host" not in headers:
            raise HeadError(400, "the Host field is missing; HTTP/1.1 asks for it")
        connection = headers.get(b"connection")
        if connection is None:
            head.keep_alive = head.minor == 1
        else:
            options = {option.strip() for option in connection.lower().split(b",")}
            head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
        expect = headers.get(b"expect")
        head.expects_continue = False
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise HeadError(417, "only Expect: 100-continue is known")
            head.expects_continue = head.minor == 1
        return head


def _origin_form(target: bytes) -> bytes:
    """The path of "http://host/path", which a server must accept (RFC 9112, 3.2.2). Raises HeadError."""
    if target == b"*":
        return b"*"
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise HeadError(400, "the request target cannot be read") from None
    if url.schema not in (b"http", b"https"):
        raise HeadError(400, "the request target is neither a path nor an http URL")
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
