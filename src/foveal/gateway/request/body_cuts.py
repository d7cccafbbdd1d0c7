"""The small rest of a body once its long strings are cut out, and where everything stands in the body.

A JSON string that starts with `data:` is found by its first six bytes, quote included. In valid JSON such a quote, if no
backslash escapes it, always opens a string: after a closing quote only `,`, `:`, `]`, `}` and space may follow. Its end is
the next quote that is not escaped. So 4 MB of base64 cost one memchr, and what remains is parsed properly.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from foveal.core.errors import InvalidRequestError

__all__ = ["BodyCuts", "Span", "cut_data_urls", "cut_urls"]

Body = bytes | bytearray
Span = tuple[int, int]
"""[start, end) of a string's text in the body, without the quotes."""

_DATA = b'"data:'
_QUOTE = b'"'
_BACKSLASH = 0x5C
# A client cannot guess it, so no text of its own is taken for a stand-in.
_MARK = f"~{secrets.token_hex(8)}."
# A string that may turn out to be a URL once it is decoded.
_URL_START = re.compile(rb'"(?=[dD][aA\\]|[hH][tT\\]|\\)')
_SCHEMES = ("data:", "http:", "https:")
_ESCAPED_SCHEME_BYTES = 6 * len("https:")
# Each costs microseconds: a body made of nothing else must not hold up everybody.
_MOST_CUTS = 4096
_MOST_CANDIDATES = 20_000
_MOST_ESCAPED_QUOTES = 1000


class BodyCuts:
    """`text` is the body with each of `spans` replaced by a stand-in that `index` recognises."""

    __slots__ = ("_edges", "_shifts", "body", "spans", "text")

    def __init__(self, body: Body, spans: Sequence[Span]) -> None:
        """`spans` in order, none inside another."""
        self.body = body
        self.spans = spans
        self._edges: list[int] = []
        self._shifts: list[int] = []
        if not spans:
            self.text: Body = body
            return
        parts: list[Body] = []
        done = length = 0
        for number, (start, end) in enumerate(spans):
            mark = b"%s%d" % (_MARK_BYTES, number)
            parts.append(body[done:start])
            parts.append(mark)
            length += start - done + len(mark)
            self._edges.append(length)
            self._shifts.append(end - length)
            done = end
        parts.append(body[done:])
        self.text = b"".join(parts)

    def index(self, value: str) -> int:
        """Which of `spans` a decoded string stands for; -1 if it is an ordinary string."""
        return int(value[len(_MARK) :]) if value.startswith(_MARK) else -1

    def resolve(self, value: str) -> str:
        """A decoded string of `text` -> the string that the body has there."""
        index = self.index(value)
        if index < 0:
            return value
        start, end = self.spans[index]
        try:
            return msgspec.json.decode(b'"%b"' % bytes(self.body[start:end]), type=str)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"the request body is not valid JSON: {error}") from error

    def starts_with_data(self, index: int) -> bool:
        """True for a data URL, in any notation."""
        start, end = self.spans[index]
        return self.body.startswith(b"data:", start) or _beginning(self.body, start, end).startswith("data:")

    def body_position(self, position: int) -> int:
        """A position in `text`, outside of the stand-ins -> the position in the body."""
        passed = bisect_right(self._edges, position)
        return position + self._shifts[passed - 1] if passed else position


_MARK_BYTES = _MARK.encode()


def cut_data_urls(body: Body) -> BodyCuts:
    """Cuts out every string that starts with `data:`, written plainly. Raises InvalidRequestError for thousands of them.

    One with a thousand escaped quotes is no image but a text that begins so: it stays, and is parsed with the rest.
    """
    spans: list[Span] = []
    candidates = 0
    at = body.find(_DATA)
    while at >= 0:
        candidates += 1
        if candidates > _MOST_CANDIDATES:
            raise _too_many('places with "data:', _MOST_CANDIDATES)
        past = at + 1
        if not _is_escaped(body, at):
            end, past = _string_end(body, at + 1)
            if end >= 0:
                spans.append((at + 1, end))
                if len(spans) > _MOST_CUTS:
                    raise _too_many("strings that start with data:", _MOST_CUTS)
        at = body.find(_DATA, past)
    return BodyCuts(body, spans)


def cut_urls(cuts: BodyCuts) -> BodyCuts:
    """Cuts out also every string that may be a URL in any notation: `HTTPS:`, `\\u0064ata:`, `http:\\/\\/`.

    Raises InvalidRequestError if thousands come into question.
    """
    text = cuts.text
    more: list[Span] = []
    past = 0
    for number, match in enumerate(_URL_START.finditer(text)):
        if number >= _MOST_CANDIDATES:
            raise _too_many("strings that may be URLs", _MOST_CANDIDATES)
        at = match.start()
        if at < past or _is_escaped(text, at):
            continue
        end, past = _string_end(text, at + 1)
        if end >= 0 and _beginning(text, at + 1, end).startswith(_SCHEMES):
            more.append((cuts.body_position(at + 1), cuts.body_position(end)))
    return BodyCuts(cuts.body, sorted([*cuts.spans, *more]))


def _string_end(body: Body, start: int) -> tuple[int, int]:
    """(where the quote is that closes the string whose text starts at `start`, from where to look on).

    The first is -1 if there is none, or none behind so many escaped ones.
    """
    end = body.find(_QUOTE, start)
    for _ in range(_MOST_ESCAPED_QUOTES):
        if end < 0:
            return -1, len(body)
        if not _is_escaped(body, end, start):
            return end, end
        end = body.find(_QUOTE, end + 1)
    return -1, max(end, start)


def _too_many(what: str, limit: int) -> InvalidRequestError:
    return InvalidRequestError(f"the request body has more than {limit:,} {what}; send them in several requests")


def _is_escaped(body: Body, at: int, low: int = 0) -> bool:
    """True if an odd number of backslashes stands before `at`."""
    if at == low or body[at - 1] != _BACKSLASH:
        return False
    width = 64
    while True:
        first = max(low, at - width)
        window = body[first:at]
        kept = len(window.rstrip(b"\\"))
        if kept or first == low:
            return bool((len(window) - kept) & 1)
        width *= 8


def _beginning(body: Body, start: int, end: int) -> str:
    """The first characters of a string's text, decoded, in lower case; enough to tell a URL's scheme."""
    text = bytes(body[start : min(end, start + _ESCAPED_SCHEME_BYTES)])
    while text:
        try:
            return msgspec.json.decode(b'"%b"' % text, type=str).lower()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            text = text[:-1]  # an escape or a character was cut in two
    return ""
