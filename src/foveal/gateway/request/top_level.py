"""Where the values of a JSON object's own fields stand. For the few requests where a plain search is ambiguous."""

from __future__ import annotations

import re

import msgspec

from foveal.core.errors import InvalidRequestError

__all__ = ["top_level_spans"]

# An array of numbers (token ids) is one token, a string is one.
_TOKEN = re.compile(rb'\[[-+0-9.eE, \t\r\n]*+\]|"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)
_MOST_TOKENS = 500_000
_SPACE = b" \t\r\n"


def top_level_spans(text: bytes | bytearray) -> dict[str, tuple[int, int]]:
    """Field name -> [start, end) of its value; the last one where a name is repeated, as parsers have it.

    `text` must be a valid JSON object, but for what its strings hold. Raises InvalidRequestError for a name that is no text,
    and for an object of half a million tokens: walking it takes a quarter of a second, in which nobody else is served.
    """
    spans: dict[str, tuple[int, int]] = {}
    depth = 0
    start = -1
    name: str | None = None
    key: bytes = b""
    for number, match in enumerate(_TOKEN.finditer(text)):
        if number >= _MOST_TOKENS:
            raise InvalidRequestError(
                f"the request body has more than {_MOST_TOKENS:,} JSON tokens, and model, priority or cache_salt cannot be "
                "found by a search; send a smaller request, or name the model by a word that stands nowhere else"
            )
        token = match.group()
        first = token[0]
        if first == 0x22:  # a string
            if depth == 1 and name is None:
                key = token
        elif len(token) > 1:
            pass  # numbers
        elif first in b"{[":
            depth += 1
        elif first in b"]}":
            depth -= 1
            if depth == 0 and name is not None:
                spans[name] = _trim(text, start, match.start())
                break
        elif depth == 1 and first == 0x3A and name is None:
            name, start = _name(key), match.end()
        elif depth == 1 and first == 0x2C and name is not None:
            spans[name] = _trim(text, start, match.start())
            name = None
    return spans


def _name(key: bytes) -> str:
    try:
        return msgspec.json.decode(key, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequestError("a field's name is not valid JSON text; send JSON in UTF-8") from error


def _trim(text: bytes | bytearray, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] in _SPACE:
        start += 1
    while end > start and text[end - 1] in _SPACE:
        end -= 1
    return start, end
