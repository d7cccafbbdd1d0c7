"""Image parts: data URLs, headers, limits."""

from __future__ import annotations

import base64
import struct
import zlib
from urllib.parse import quote_from_bytes

import pytest

from foveal.core.errors import ImageDecodeError, PayloadTooLargeError, TooManyImagesError
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.images import decode_data_url, load_images
from foveal.engine.server.limits import Admission
from foveal.protocol.content import ImagePart
from foveal.protocol.remote_image.fetch_config import FetchConfig
from foveal.protocol.remote_image.image_fetcher import ImageFetcher
from support.pictures import data_url, png

CONFIG = ServerConfig(max_images=3, max_image_bytes=10_000, max_image_pixels=1000)


async def load(*urls: str) -> list[bytes]:
    parts = [(f"part {index}", ImagePart(url)) for index, url in enumerate(urls)]
    with Admission(CONFIG).enter() as lease:
        return await load_images(parts, CONFIG, ImageFetcher(FetchConfig(), 100), lease)


def bomb() -> bytes:
    """A PNG of 70 bytes whose header says 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


async def test_pictures_come_back_in_order() -> None:
    pictures = [png("red"), png("blue"), png("green")]
    assert await load(*map(data_url, pictures)) == pictures


@pytest.mark.parametrize(
    "url",
    [
        data_url(),
        "DATA:image/png;charset=x;BASE64," + base64.b64encode(png()).decode(),
        "data:;base64," + base64.urlsafe_b64encode(png()).decode().rstrip("="),
        "data:image/png;base64," + base64.encodebytes(png()).decode(),
        "data:image/png;base64," + base64.b64encode(png()).decode().replace("+", "%2B").replace("=", "%3D"),
        "data:image/png," + quote_from_bytes(png()),
    ],
)
def test_data_urls_are_read_in_every_common_spelling(url: str) -> None:
    assert decode_data_url(url, 10_000, "p") == png()


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:;base64,####", "data:;base64,AAAAA", "data:;base64,é"])
def test_broken_data_urls_are_refused(url: str) -> None:
    with pytest.raises(ImageDecodeError) as caught:
        decode_data_url(url, 10_000, "the part")
    assert caught.value.param == "the part"


def test_size_is_checked_before_base64_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pybase64.b64decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(PayloadTooLargeError, match="limit is 1,000"):
        decode_data_url("data:;base64," + "A" * 10_000, 1000, "p")


async def test_too_many_images_are_refused_before_any_is_decoded() -> None:
    with pytest.raises(TooManyImagesError, match="4 images; the limit is 3"):
        await load(*["data:broken"] * 4)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ImageDecodeError),
        (b"not a picture", ImageDecodeError),
        (bomb(), PayloadTooLargeError),
        (png(size=(40, 40)), PayloadTooLargeError),
    ],
    ids=["empty", "text", "bomb", "too many pixels"],
)
async def test_a_bad_picture_names_its_part(data: bytes, error: type[ImageDecodeError | PayloadTooLargeError]) -> None:
    with pytest.raises(error) as caught:
        await load(data_url(), data_url(data))
    assert caught.value.param == "part 1"


async def test_a_failing_url_cancels_the_others() -> None:
    with pytest.raises(Exception, match="private or reserved"):
        await load("http://127.0.0.1/a.png", data_url())
