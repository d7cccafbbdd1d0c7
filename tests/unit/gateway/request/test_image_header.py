"""Sizes from headers are those that PIL finds after turning the picture as a viewer does."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from foveal.gateway.request.data_url import DataUrlFile
from foveal.gateway.request.image_header.image_size import image_size
from foveal.gateway.request.image_header.source import BytesFile

_SAVED = {
    "jpeg": {"format": "JPEG"},
    "progressive": {"format": "JPEG", "progressive": True, "optimize": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "quality": 50},
    "lossless": {"format": "WEBP", "lossless": True},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "tiff": {"format": "TIFF"},
    "avif": {"format": "AVIF", "speed": 10},
}


def _picture(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def _saved(image: Image.Image, kind: str, **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, **{**_SAVED[kind], **more})
    return out.getvalue()


def _shown_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return ImageOps.exif_transpose(image).size


def _in_body(data: bytes, write: Callable[[str], str] = lambda text: text) -> DataUrlFile:
    url = b"data:image/x;base64," + write(base64.b64encode(data).decode()).encode()
    body = b'{"url":"' + url + b'"}'
    return DataUrlFile(body, 8, len(body) - 2)


@pytest.mark.parametrize("kind", _SAVED)
@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_the_size_is_the_one_pil_finds(kind: str, width: int, height: int) -> None:
    data = _saved(_picture(width, height), kind)

    assert image_size(BytesFile(data)) == image_size(_in_body(data)) == _shown_size(data) == (width, height)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "lossless", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_in_exif_swaps_the_sides(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera of some make"
    exif[0x0112] = orientation
    data = _saved(_picture(64, 40), kind, exif=exif.tobytes() if kind != "tiff" else exif)

    assert image_size(_in_body(data)) == _shown_size(data)


def test_an_orientation_in_xmp_alone_counts_for_jpeg() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = _saved(_picture(64, 40), "jpeg", xmp=xmp)

    assert image_size(_in_body(data)) == _shown_size(data) == (40, 64)


def test_a_jpeg_behind_large_segments_is_found_without_reading_them() -> None:
    profile = bytes(random.Random(0).randbytes(200_000))
    data = _saved(_picture(320, 200), "jpeg", icc_profile=profile, comment=b"x" * 60_000)
    reads: list[int] = []

    class Counting(BytesFile):
        def read(self, offset: int, count: int) -> bytes:
            reads.append(count)
            return super().read(offset, count)

    assert image_size(Counting(data)) == image_size(_in_body(data)) == (320, 200)
    assert sum(reads) < 1000


def test_an_animation_has_the_size_of_its_canvas() -> None:
    frames = [_picture(50, 30), _picture(50, 30)]
    gif, webp = io.BytesIO(), io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=50)
    frames[0].save(webp, "WEBP", save_all=True, append_images=frames[1:], duration=50)

    assert image_size(BytesFile(gif.getvalue())) == image_size(BytesFile(webp.getvalue())) == (50, 30)


def test_a_first_frame_larger_than_a_gifs_screen_widens_it() -> None:
    data = bytearray(_saved(_picture(60, 20), "gif"))
    data[6:10] = b"\x05\x00\x05\x00"

    assert image_size(BytesFile(bytes(data))) == _shown_size(bytes(data)) == (60, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
def test_every_png_mode_is_read(mode: str) -> None:
    data = _saved(Image.new(mode, (31, 17)), "png")

    assert image_size(_in_body(data)) == (31, 17)


_NOTATIONS: dict[str, Callable[[str], str]] = {
    "slashes escaped": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "all escaped": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "line breaks": lambda text: "\\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
    "percent": lambda text: text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    "url-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "no padding": lambda text: text.rstrip("="),
    "spaces": lambda text: " ".join(text[at : at + 100] for at in range(0, len(text), 100)),
}


@pytest.mark.parametrize("notation", _NOTATIONS)
@pytest.mark.parametrize("size", [(8, 8), (400, 300)])
def test_any_notation_of_base64_is_read(notation: str, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = _saved(_picture(*size), "jpeg", exif=exif.tobytes(), icc_profile=bytes(range(256)) * 300)

    assert image_size(_in_body(data, _NOTATIONS[notation])) == _shown_size(data)


def test_a_percent_encoded_file_without_base64_is_read() -> None:
    body = b"data:image/png," + quote_from_bytes(_saved(_picture(12, 34), "png")).encode()

    assert image_size(DataUrlFile(body, 0, len(body))) == (12, 34)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.data())
def test_any_few_bytes_of_a_file_are_read_as_they_are(data: bytes, draw: st.DataObject) -> None:
    notation = draw.draw(st.sampled_from([lambda text: text, *_NOTATIONS.values()]))
    file = _in_body(data, notation)

    for _ in range(3):
        offset, count = draw.draw(st.integers(0, 450)), draw.draw(st.integers(0, 450))
        assert file.read(offset, count) == data[offset : offset + count]


@pytest.mark.parametrize("length", range(12))
def test_the_number_of_bytes_is_known_without_decoding(length: int) -> None:
    assert _in_body(bytes(length)).num_bytes == length
    assert _in_body(bytes(length), _NOTATIONS["no padding"]).num_bytes == length


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(_SAVED)), st.data())
def test_a_damaged_header_gives_no_size_or_some_size_but_no_error(kind: str, draw: st.DataObject) -> None:
    data = bytearray(_saved(Image.new("RGB", (20, 10)), kind))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    end = draw.draw(st.integers(0, len(data)))

    size = image_size(BytesFile(bytes(data[:end])))

    assert size is None or min(size) > 0


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"%PDF-1.7", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"])
def test_what_is_no_picture_has_no_size(data: bytes) -> None:
    assert image_size(BytesFile(data)) is None
