"""Whatever the notation, the view is that of a full parse, and every place is where the value stands."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import RequestError
from foveal.gateway.request.read_view import read_view
from support.json_writer import Pairs, write_json

# What could be mistaken for the structure around it.
_TRAPS = (
    "data:",
    'data:"',
    '"data:image/png;base64,AAAA"',
    '\\"data:x',
    "\\",
    '\\"',
    '":"',
    '","',
    '{"model":"b"}',
    '"model": "a"',
    "~0",
    "https://x/y.png",
    "HTTP://x",
    "}",
    "]}",
    ": [",
    "é€😀",
    "null",
    "",
)
_TEXT = st.one_of(
    st.sampled_from(_TRAPS), st.text(max_size=12), st.lists(st.sampled_from(_TRAPS), max_size=3).map("".join)
)
_NAMES = ("model", "url", "image_url", "priority", "cache_salt", "messages", "x", "data:k", "content")
_ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1e6, 1e6), _TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(_NAMES), _TEXT), inner, max_size=3)
    ),
    max_leaves=6,
)
_DATA_URLS = st.builds(
    lambda head, data: head + base64.b64encode(data).decode(),
    st.sampled_from(("data:image/png;base64,", "DATA:image/jpeg;base64,", "data:;base64,")),
    st.binary(max_size=40),
)
_URLS = st.one_of(_DATA_URLS, st.sampled_from(("https://host/a.png", "http://host/b?c=d", "HTTPS://HOST/\u00e9.jpg")))


@st.composite
def _parts(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(("text", "image", "bare", "string")))
    if kind == "text":
        return {"type": "text", "text": draw(_TEXT), **draw(_extras())}
    if kind == "string":
        return draw(_TEXT)
    url = draw(_URLS)
    if kind == "bare":
        return {"type": "image_url", "image_url": url}
    return {"image_url": {"url": url, "detail": draw(st.sampled_from(("low", "high", "auto")))}, "type": "image_url"}


def _extras() -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(("zz", "url", "data", "model")), _ANY, max_size=1)


_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(("system", "user", "assistant")),
            "content": st.one_of(st.none(), _TEXT, st.lists(_parts(), max_size=3)),
        }
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def _requests(draw: st.DrawFn) -> Pairs:
    fields: list[tuple[str, Any]] = [
        ("model", draw(st.one_of(st.sampled_from(("a", "b", "role", "user", "url")), _TEXT))),
        ("messages", draw(_MESSAGES)),
    ]
    optional = {
        "stream": st.booleans() | st.none(),
        "n": st.integers(1, 4),
        "max_tokens": st.integers(0, 99) | st.none(),
        "max_completion_tokens": st.integers(0, 99),
        "temperature": st.floats(0, 2) | st.integers(0, 2),
        "seed": st.integers(-9, 9),
        "priority": st.sampled_from((0, 1, 2, "P0", "p2", None)),
        "cache_salt": _TEXT | st.none(),
        "prompt_cache_key": _TEXT,
        "metadata": _ANY,
        "x": _ANY,
    }
    for name, values in optional.items():
        if draw(st.booleans()):
            fields.append((name, draw(values)))
    fields = draw(st.permutations(fields))
    if draw(st.booleans()):  # a parser takes the last of equal names
        fields = [*fields, ("model", draw(st.sampled_from(("a", "b", "c"))))]
    return Pairs(fields)


def _text_of(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part) if isinstance(part, str) else len(part.get("text", "")) for part in content or ())


def _images_of(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for message in messages:
        if isinstance(message["content"], list):
            for part in message["content"]:
                if isinstance(part, dict) and part["type"] == "image_url":
                    value = part["image_url"]
                    found.append((value, "auto") if isinstance(value, str) else (value["url"], value["detail"]))
    return found


@settings(max_examples=300, deadline=None)
@given(_requests(), st.integers(0, 2**32), st.sampled_from((0.0, 0.02, 0.3, 1.0)), st.booleans())
def test_a_view_is_that_of_a_full_parse(request: Pairs, seed: int, escape_rate: float, mutable: bool) -> None:
    written = write_json(request, seed, escape_rate)
    body = bytearray(written) if mutable else written
    parsed = json.loads(body)

    view = read_view(body, {}, "chat")

    assert view.model == parsed["model"]
    assert json.loads(b'"' + body[view.model_start : view.model_end] + b'"') == parsed["model"]
    assert view.stream == bool(parsed.get("stream"))
    assert view.num_choices == parsed.get("n", 1)
    assert view.max_tokens == parsed.get("max_completion_tokens", parsed.get("max_tokens"))
    assert view.temperature == parsed.get("temperature")
    assert view.seed == parsed.get("seed")
    assert view.num_messages == len(parsed["messages"])
    assert view.text_chars == sum(_text_of(message["content"]) for message in parsed["messages"])
    assert view.session_id == parsed.get("prompt_cache_key")
    assert view.cache_salt == parsed.get("cache_salt")
    priority = parsed.get("priority")
    assert view.priority == (None if priority is None else int(str(priority).lower().removeprefix("p")))
    for name, start, end in (
        ("priority", view.priority_start, view.priority_end),
        ("cache_salt", view.cache_salt_start, view.cache_salt_end),
    ):
        if name in parsed:
            assert json.loads(body[start:end]) == parsed[name]
        else:
            assert (start, end) == (0, 0)
    images = _images_of(parsed["messages"])
    assert len(view.images) == len(images)
    for image, (url, detail) in zip(view.images, images, strict=True):
        assert json.loads(b'"' + body[image.start : image.end] + b'"') == url
        assert image.detail == detail
        assert image.kind == ("data" if url[:5].lower() == "data:" else "remote")


@settings(max_examples=150, deadline=None)
@given(_requests(), st.integers(0, 2**32), st.data())
def test_a_body_that_is_no_json_is_refused_or_read_as_nothing_else(
    request: Pairs, seed: int, data: st.DataObject
) -> None:
    """A body cut short is never taken for a whole one."""
    body = write_json(request, seed, 0.05)
    cut = data.draw(st.integers(0, len(body.rstrip()) - 1))
    with pytest.raises(RequestError) as caught:
        read_view(body[:cut], {}, "chat")
    assert caught.value.status == 400


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b'"data:', b'"', b"{", b"}", b"\\", b'"model":"a"', b',"messages":[]', b":"]), max_size=12
    ).map(b"".join)
)
def test_garbage_gives_an_explanation_and_nothing_else(body: bytes) -> None:
    error = _refusal(body)
    if error is None:
        json.loads(body)
    else:
        assert error.status == 400
        assert len(error.message) > 10


def _refusal(body: bytes) -> RequestError | None:
    try:
        read_view(body, {}, "chat")
    except RequestError as error:
        return error
    return None
