"""Any few bytes of a data URL's file, without decoding the rest of it."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import msgspec
import pybase64

__all__ = ["DataUrlFile"]

_WINDOW_BYTES = 1536
_LONGEST_HEAD = 1024
_PREFIX_BYTES = 64 * 1024
# What plain base64 in a JSON string does not hold: JSON escapes, percent-encoding, space.
_IRREGULAR = (b"\\", b"%", b" ")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class DataUrlFile:
    """The file behind body[start:end), a data URL as it stands inside a JSON string.

    Base64 that is written plainly is read at any place by arithmetic. Anything else (`\\/`, line breaks, percent-encoding,
    the URL-safe alphabet) is decoded from its beginning, as far as needed.
    """

    __slots__ = ("_body", "_end", "_is_base64", "_is_plain", "_payload", "_window", "_window_start")

    def __init__(self, body: bytes | bytearray, start: int, end: int) -> None:
        """Raises ValueError without a comma: then it is no data URL."""
        comma = body.find(b",", start, min(end, start + _LONGEST_HEAD))
        head = body[start : max(start, comma)]
        if b"\\" in head:
            head = _unescaped(head)
        if comma < 0 or b"," in head:
            # The comma itself is written as an escape: no sane client does, but it is valid.
            body, start = _unescaped(body[start:end]), 0
            end = len(body)
            comma = body.find(b",", 0, _LONGEST_HEAD)
            head = body[: max(0, comma)]
        if comma < 0:
            raise ValueError("no comma")
        self._body = body
        self._payload = comma + 1
        self._end = end
        self._is_base64 = head[-7:].lower() == b";base64"
        self._is_plain = self._is_base64
        self._window = b""
        self._window_start = 0
        if self._is_plain:
            self._load(0, _WINDOW_BYTES)

    @property
    def num_bytes(self) -> int:
        """Size of the file; for irregular notations an upper bound."""
        length = self._end - self._payload
        if not self._is_base64:
            return length
        padding = 0
        while padding < 2 and length > padding and self._body[self._end - 1 - padding] == 0x3D:
            padding += 1
        if padding == 0 or length % 4:
            return (length - padding) * 3 // 4
        return length // 4 * 3 - padding

    def read(self, offset: int, count: int) -> bytes:
        """File bytes [offset, offset + count), fewer at the end of the file. Raises ValueError for what is not base64."""
        begin = offset - self._window_start
        if begin < 0 or begin + count > len(self._window):
            self._load(offset, count)
            begin = offset - self._window_start
        return self._window[begin : begin + count]

    def _load(self, offset: int, count: int) -> None:
        if self._is_plain and self._load_plain(offset, max(count, _WINDOW_BYTES)):
            return
        self._is_plain = False
        if self._window_start == 0 and self._window and offset + count <= len(self._window):
            return
        raw = bytes(self._body[self._payload : min(self._end, self._payload + _PREFIX_BYTES)])
        if self._payload + len(raw) < self._end:
            # Never end inside an escape (at most 6 bytes) or a percent-encoded byte.
            for mark, length in ((b"\\", 6), (b"%", 3)):
                at = raw.rfind(mark, len(raw) - length)
                raw = raw[:at] if at >= 0 else raw
            self._window, self._window_start = self._decoded(raw), 0
            if offset + count <= len(self._window):
                return
            raw = bytes(self._body[self._payload : self._end])
        self._window, self._window_start = self._decoded(raw), 0

    def _load_plain(self, offset: int, count: int) -> bool:
        """False if the notation up to there is irregular."""
        first = self._payload + offset // 3 * 4
        last = min(self._end, self._payload + (offset + count + 2) // 3 * 4)
        if first >= last:
            self._window, self._window_start = b"", offset
            return True
        for mark in _IRREGULAR:
            if self._body.find(mark, self._payload, last) >= 0:
                return False
        raw = bytes(self._body[first:last])
        try:
            self._window = pybase64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
        except ValueError:
            return False
        self._window_start = offset // 3 * 3
        return True

    def _decoded(self, raw: bytes) -> bytes:
        if b"\\" in raw:
            raw = _unescaped(raw)
        if b"%" in raw or not self._is_base64:
            raw = unquote_to_bytes(raw)
        if not self._is_base64:
            return raw
        compact = b"".join(raw.split()).translate(_URL_SAFE).rstrip(b"=")
        compact = compact[: len(compact) - (len(compact) % 4 == 1)]
        return pybase64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)


def _unescaped(raw: bytes | bytearray) -> bytes:
    """JSON string text -> what it stands for. Raises ValueError if it is not JSON."""
    return msgspec.json.decode(b'"%b"' % bytes(raw), type=str).encode()
