"""What a request is read as, where the oracle does not look, and how bad ones are refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from foveal.core.errors import (
    ImageDecodeError,
    InvalidRequestError,
    PayloadTooLargeError,
    RequestError,
    TooManyImagesError,
)
from foveal.core.priority import Priority
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.request.read_view import read_view
from foveal.gateway.request.view import RequestView
from support.pictures import data_url, png


def _chat(content: Any = "hello", **fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


def _view(body: bytes, headers: dict[bytes, bytes] | None = None, **options: Any) -> RequestView:
    return read_view(body, headers or {}, options.pop("endpoint", "chat"), **options)


def _image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def test_an_image_is_known_by_its_size_without_being_decoded() -> None:
    data = png(size=(640, 480))
    body = _chat([_image(data_url(data), detail="low"), {"type": "text", "text": "What?"}])

    (image,) = _view(body).images

    assert (image.kind, image.width, image.height, image.detail) == ("data", 640, 480, "low")
    assert image.num_bytes == len(data)
    assert body[image.start : image.end].decode() == data_url(data)
    assert image.param == "messages[0].content[0].image_url"


def test_a_picture_with_a_header_that_cannot_be_read_is_left_to_the_backend() -> None:
    (image,) = _view(_chat([_image("data:image/jpeg;base64,AAAA")])).images

    assert (image.kind, image.width, image.height) == ("data", 0, 0)


def test_equal_images_have_equal_fingerprints_and_others_do_not() -> None:
    first, second = (data_url(png(color, size=(64, 64))) for color in ("red", "blue"))
    once = _view(_chat([_image(first), _image(second), _image(first)]))

    marks = [image.fingerprint for image in once.images]

    assert marks[0] == marks[2] != marks[1]
    assert _view(_chat(["a text before", _image(first)])).images[0].fingerprint == marks[0]


def test_a_difference_anywhere_in_a_sampled_part_of_a_large_image_shows() -> None:
    data = bytearray(300_000)
    url = "data:image/png;base64,"
    plain = _view(_chat([_image(url + base64.b64encode(data).decode())])).images[0]
    data[-1] = 1
    changed = _view(_chat([_image(url + base64.b64encode(data).decode())])).images[0]
    longer = _view(_chat([_image(url + base64.b64encode(data + b"\0\0\0").decode())])).images[0]

    assert len({plain.fingerprint, changed.fingerprint, longer.fingerprint}) == 3


def test_a_remote_image_is_found_with_its_place() -> None:
    body = _chat([_image(data_url()), _image("https://pictures.test/a.png"), {"type": "text", "text": "https://x"}])

    view = _view(body)

    assert [image.kind for image in view.images] == ["data", "remote"]
    assert body[view.images[1].start : view.images[1].end] == b"https://pictures.test/a.png"
    assert view.text_chars == len("https://x")


@pytest.mark.parametrize("part", ["video_url", "audio_url"])
def test_other_media_at_an_url_are_noticed(part: str) -> None:
    assert _view(_chat([{"type": part, part: {"url": "http://10.0.0.1/x.mp4"}}])).other_urls
    assert not _view(_chat([{"type": part, part: {"url": "data:video/mp4;base64,AAAA"}}])).other_urls


def test_headers_say_priority_and_session_where_the_body_does_not() -> None:
    headers = {b"x-priority": b"P2", b"x-session-id": b"abc"}

    assert _view(_chat(), headers).priority is Priority.P2
    assert _view(_chat(priority=0), headers).priority is Priority.P0
    assert _view(_chat(priority=None), headers).priority is Priority.P2
    assert _view(_chat(prompt_cache_key="k"), headers).session_id == "abc"
    assert _view(_chat(prompt_cache_key="k")).session_id == "k"


@pytest.mark.parametrize("value", [3, -1, "urgent", 1.5, [], True])
def test_a_priority_that_does_not_exist_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="priority"):
        _view(_chat(priority=value))
    with pytest.raises(InvalidRequestError, match="X-Priority"):
        _view(_chat(), {b"x-priority": b"urgent"})


def test_tools_are_noticed_and_counted_as_text() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 100}}]

    assert _view(_chat(tools=tools)).has_tools
    assert _view(_chat(tools=tools)).text_chars > 100
    for none in (None, []):
        assert not _view(_chat(tools=none)).has_tools
        assert _view(_chat(tools=none)).text_chars == len("hello")


@pytest.mark.parametrize(
    ("prompt", "chars", "ids", "choices"),
    [
        ("hello", 5, 0, 2),
        ([1, 2, 3], 0, 3, 2),
        (["ab", "c"], 3, 0, 4),
        ([[1, 2], [3]], 0, 3, 4),
        ([], 0, 0, 2),
    ],
)
def test_prompts_are_text_or_token_ids(prompt: Any, chars: int, ids: int, choices: int) -> None:
    body = json.dumps({"model": "m", "prompt": prompt, "n": 2}).encode()

    view = _view(body, endpoint="completion")

    assert (view.text_chars, view.prompt_ids, view.num_choices) == (chars, ids, choices)


def test_requests_that_begin_alike_share_a_prefix_digest() -> None:
    system = {"role": "system", "content": "You are terse."}
    first, answer = {"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}

    def digest(model: str, *messages: dict[str, str]) -> bytes:
        return _view(json.dumps({"model": model, "messages": messages}).encode()).prefix_digest

    asked = digest("m", system, first)
    assert asked == digest("m", system, first, answer, {"role": "user", "content": "Two?"})
    assert asked != digest("m", system, {"role": "user", "content": "Other?"})
    assert asked != digest("n", system, first)
    assert asked != digest("m", first)


def test_two_images_do_not_share_a_prefix() -> None:
    red, blue = (_view(_chat([_image(data_url(png(color))), "What?"])) for color in ("red", "blue"))

    assert red.prefix_digest != blue.prefix_digest


def test_the_name_of_a_model_may_stand_anywhere_else_too() -> None:
    body = b'{"metadata":{"model":"m"},"messages":[{"role":"m","content":"m"}],"model" : "m" ,"x":["m"]}'

    view = _view(body)

    assert body[: view.model_start].endswith(b'"model" : "')
    assert body[view.model_start : view.model_end] == b"m"


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "empty", None),
        (b"{", "not valid JSON", None),
        (b"[]", "array", None),
        (b'{"model":null,"messages":[]}', "model must be a string", "model"),
        (b'{"model":"m"}', "messages is missing", "messages"),
        (b'{"model":1,"messages":[]}', "model must be a string", "model"),
        (b'{"model":"\xff","messages":[]}', "model must be a string", "model"),
        (b'{"model":"m","messages":[],"priority":"\xff"}', "priority must be", "priority"),
        (_chat(stream="yes"), "stream", "stream"),
        (_chat(n=1.5), "n:", "n"),
        (_chat(temperature="hot"), "temperature", "temperature"),
        (_chat(cache_salt=5), "cache_salt", "cache_salt"),
        (_chat([_image("file:///etc/passwd")]), "data: URL", "messages[0].content[0].image_url"),
        (_chat([_image("")]), "data: URL", "messages[0].content[0].image_url"),
        (b'{"model":"m","x":' + b"[" * 100_000, "nested too deeply", None),
        (b'{"model":"m","messages":[]} x', "not valid JSON", None),
    ],
)
def test_a_bad_request_is_refused_with_its_field(body: bytes, says: str, param: str | None) -> None:
    with pytest.raises(InvalidRequestError, match=says.replace("[", r"\[")) as caught:
        _view(body)
    assert caught.value.param == param


@pytest.mark.parametrize("n", [-1, 0, 17, 1 << 63])
def test_more_answers_than_the_engine_gives_are_refused_before_they_have_a_price(n: int) -> None:
    with pytest.raises(InvalidRequestError, match="n: expected") as caught:
        _view(_chat(n=n))
    assert caught.value.param == "n"
    assert _view(_chat(n=16)).num_choices == 16


def test_a_request_may_leave_the_model_to_the_gateway() -> None:
    view = _view(b'{"messages":[{"role":"user","content":"model"}]}')

    assert (view.model, view.model_start, view.model_end) == ("", 0, 0)


def test_a_data_url_without_data_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="comma"):
        _view(_chat([_image("data:image/png;base64")]))


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (RequestLimits(max_images=1), TooManyImagesError),
        (RequestLimits(max_image_bytes=50), PayloadTooLargeError),
        (RequestLimits(max_image_pixels=100), PayloadTooLargeError),
        (RequestLimits(max_text_bytes=100), PayloadTooLargeError),
        (RequestLimits(max_parts=2), PayloadTooLargeError),
    ],
)
def test_limits_hold_before_a_backend_sees_the_request(limits: RequestLimits, error: type[RequestError]) -> None:
    body = _chat([_image(data_url(png(size=(20, 20)))), _image(data_url())])

    assert len(_view(body).images) == 2
    with pytest.raises(error):
        _view(body, limits=limits)


def test_a_small_file_that_claims_a_huge_picture_is_refused() -> None:
    bomb = bytearray(png())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2

    with pytest.raises(PayloadTooLargeError, match="60,000 x 60,000"):
        _view(_chat([_image(data_url(bytes(bomb)))]))


@pytest.mark.parametrize("string", [b'"data:",', b'"\\u0064",', b'"ht",', b'"\\"data:",'])
def test_a_body_of_nothing_but_traps_is_refused_early(string: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":[{"image_url":"http://x"}]}],"x":[%b0]}' % (
        string * 30_000
    )

    with pytest.raises(InvalidRequestError, match="more than"):
        _view(body)


@pytest.mark.parametrize("backslashes", [0, 2, 64, 100, 4096, 5000])
def test_any_number_of_backslashes_before_a_quote_is_counted(backslashes: int) -> None:
    run = b"\\" * backslashes
    body = b'{"model":"m","messages":[{"role":"user","content":["data:%b","%b\\"data:","x"]}]}' % (run, run)

    assert _view(body).text_chars == len("data:") + backslashes // 2 + backslashes // 2 + len('"data:') + 1


@pytest.mark.parametrize("quotes", [10, 999, 1000, 1001, 5000])
def test_a_text_that_begins_like_an_image_is_a_text(quotes: int) -> None:
    content = [{"type": "text", "text": "data: " + '"' * quotes}, _image(data_url(png(size=(9, 8))))]

    view = _view(_chat(content))

    assert view.text_chars == len("data: ") + quotes
    assert (view.images[0].width, view.images[0].height) == (9, 8)


def test_an_image_url_of_nothing_but_quotes_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="data: URL"):
        _view(_chat([_image("data:" + '"' * 5000)]))


def test_a_mutable_body_is_not_changed_and_not_held() -> None:
    body = bytearray(_chat([_image(data_url()), "text"], cache_salt="s", priority=1))
    before = bytes(body)

    view = _view(body)
    body.clear()  # would raise BufferError if somebody still looked at it

    assert view.images[0].end < len(before)
