"""Chunked request bodies (RFC 9112, section 7.1), strictly: what two servers could read differently is refused."""

from __future__ import annotations

import re

from foveal.gateway.wire.head import HeadError

__all__ = ["ChunkedBody"]

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_MAX_LINE = 1024
_MAX_TRAILER = 8192


class ChunkedBody:
    """Fed with pieces of any size; the body grows in `body`. Trailers are read and dropped.

    A chunk that would make it larger than `max_bytes` is refused before it is read.
    """

    __slots__ = ("_expect_end", "_left", "_line", "_trailer", "body", "complete", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.body = bytearray()
        self.complete = False
        self._left = 0
        """Bytes of the current chunk still to come."""
        self._expect_end = False
        """The CRLF after a chunk's data is due."""
        self._line = b""
        self._trailer = -1
        """Bytes of trailer seen; -1 before the last chunk."""

    def feed(self, data: memoryview) -> int:
        """Bytes used up: fewer than given only once `complete`. Raises HeadError (400, 413 or 431)."""
        at, end = 0, len(data)
        while at < end and not self.complete:
            if self._left:
                take = min(self._left, end - at)
                self.body += data[at : at + take]
                self._left -= take
                self._expect_end = not self._left
                at += take
            else:
                at = self._feed_line(data, at, end)
        return at

    def _feed_line(self, data: memoryview, at: int, end: int) -> int:
        piece = bytes(data[at : min(end, at + _MAX_LINE + 2)])
        start = len(self._line)
        line = self._line + piece
        stop = line.find(b"\n", start)
        if stop < 0:
            if len(line) > _MAX_LINE:
                raise HeadError(400, f"a line of the chunked body is longer than {_MAX_LINE} bytes")
            self._line = line
            return at + len(piece)
        if stop == 0 or line[stop - 1] != 0x0D:
            raise HeadError(400, "a line of the chunked body does not end with CR LF")
        self._line = b""
        self._take_line(line[: stop - 1])
        return at + stop + 1 - start

    def _take_line(self, line: bytes) -> None:
        if len(line) > _MAX_LINE or b"\r" in line:
            raise HeadError(400, f"a line of the chunked body holds a bare CR, or is longer than {_MAX_LINE} bytes")
        if self._expect_end:
            if line:
                raise HeadError(400, "a chunk is longer than its size says")
            self._expect_end = False
        elif self._trailer >= 0:
            self._trailer += len(line) + 2
            if self._trailer > _MAX_TRAILER:
                raise HeadError(431, f"the trailer is larger than {_MAX_TRAILER} bytes")
            if line and not _TRAILER_FIELD.fullmatch(line):
                raise HeadError(400, "a line of the trailer is not a field")
            self.complete = not line
        else:
            self._take_size(line)

    def _take_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise HeadError(400, "the size of a chunk is not a hexadecimal number")
        self._left = int(match[1], 16)
        if not self._left:
            self._trailer = 0
        elif len(self.body) + self._left > self.max_bytes:
            raise HeadError(413, f"the body is larger than {self.max_bytes} bytes; send smaller or fewer images")
