"""Any picture file becomes the RGB pixels that a viewer shows, or one of two errors."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from foveal.core.errors import ImageDecodeError, PayloadTooLargeError
from foveal.models.processing.image_decode import decode_image, read_image_size

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left: object, right: object, mode: str = "RGB") -> Image.Image:
    """8 x 4 pixels of two colours."""
    image = Image.new(mode, (8, 4), left)
    image.paste(right, (4, 0, 8, 4))
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_common_formats_keep_size_and_colour(kind):
    image = decode_image(encoded(Image.new("RGB", (9, 5), RED), kind))
    assert (image.mode, image.size) == ("RGB", (9, 5))
    red, green, blue = image.getpixel((4, 2))
    assert red > 240
    assert max(green, blue) < 15


def test_rgb_pixels_come_back_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    decoded = decode_image(encoded(Image.fromarray(pixels)))
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), pixels)


@pytest.mark.parametrize(
    ("orientation", "size", "top_left"), [(1, (8, 4), RED), (2, (8, 4), BLUE), (3, (8, 4), BLUE), (6, (4, 8), RED)]
)
def test_a_photograph_is_turned_as_its_exif_says(orientation, size, top_left):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encoded(halves(RED, BLUE), exif=exif.tobytes()))
    assert (decoded.size, decoded.getpixel((0, 0))) == (size, top_left)


def test_transparent_pixels_become_white_and_half_transparent_ones_mix():
    decoded = decode_image(encoded(halves((255, 0, 0, 0), (255, 0, 0, 51), "RGBA")))
    assert decoded.getpixel((0, 0)) == WHITE
    assert decoded.getpixel((7, 0)) == (255, 204, 204)


def test_grey_with_alpha_lies_on_white():
    decoded = decode_image(encoded(halves((0, 0), (0, 255), "LA")))
    assert (decoded.getpixel((0, 0)), decoded.getpixel((7, 0))) == (WHITE, (0, 0, 0))


def test_a_palette_is_resolved_and_its_transparent_entry_white():
    image = halves(0, 1, "P")
    image.putpalette([*GREEN, *BLUE])
    assert decode_image(encoded(image)).getpixel((0, 0)) == GREEN
    transparent = decode_image(encoded(image, transparency=0))
    assert (transparent.getpixel((0, 0)), transparent.getpixel((7, 0))) == (WHITE, BLUE)


def test_black_and_white_and_grey_become_rgb():
    assert decode_image(encoded(halves(0, 1, "1"))).getpixel((7, 0)) == WHITE
    assert decode_image(encoded(halves(0, 100, "L"))).getpixel((7, 0)) == (100, 100, 100)


def test_cmyk_inks_become_rgb():
    decoded = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"))
    red, green, blue = decoded.getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 257 * 10, 257 * 128, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), kind))
    np.testing.assert_array_equal(np.asarray(decoded)[0, :, 0], [0, 10, 128, 255])


def test_float_grey_is_stretched_to_its_range():
    decoded = decode_image(encoded(Image.fromarray(np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)), "TIFF"))
    np.testing.assert_allclose(np.asarray(decoded)[0, :, 0], [0, 127.5, 255], atol=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert decode_image(data).getpixel((4, 4)) == RED


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_cut_of_a_file_is_refused_or_a_whole_picture(kind):
    """Never another exception, and never a picture of another size."""
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    for length in range(0, len(data) - 1, max(1, len(data) // 40)):
        with contextlib.suppress(ImageDecodeError):
            assert decode_image(data[:length]).size == (16, 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_file_cut_in_half_is_an_error_that_says_so(kind):
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    with pytest.raises(ImageDecodeError, match=r"truncated|damaged|not an image"):
        decode_image(data[: len(data) // 2])


@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"BM"])
)
def test_random_bytes_raise_only_the_two_documented_errors(data, start):
    with contextlib.suppress(ImageDecodeError, PayloadTooLargeError):
        decode_image(start + data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)\. Send a PNG"),
        (b"hello, world", r"12 bytes are not an image.*Send a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"not an image"),
    ],
)
def test_bytes_that_are_no_accepted_image_say_what_to_send(data, message):
    with pytest.raises(ImageDecodeError, match=message):
        decode_image(data)


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def refuse(self):
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)


def test_a_picture_over_the_limit_is_refused_from_its_header(nothing_is_decoded):
    data = encoded(Image.new("1", (2000, 1000)))
    with pytest.raises(PayloadTooLargeError, match=r"2,000 x 1,000 = 2,000,000 pixels; the limit is 1,999,999\. Send"):
        decode_image(data, max_pixels=1_999_999)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_header_of_a_few_bytes_that_claims_a_huge_picture_is_refused(side, nothing_is_decoded):
    """Far beyond our limit PIL's own comes first."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 9) + b"IDAT"
    with pytest.raises(PayloadTooLargeError, match=r"limit .*50,000,000.* Send a smaller picture"):
        decode_image(bomb)


def test_a_picture_at_the_limit_is_decoded():
    assert decode_image(encoded(Image.new("RGB", (20, 10))), max_pixels=200).size == (20, 10)


def test_the_size_is_read_without_decoding(nothing_is_decoded):
    data = encoded(Image.new("RGB", (20, 10)))
    assert read_image_size(data) == (20, 10)
    with pytest.raises(PayloadTooLargeError):
        read_image_size(data, max_pixels=199)
    with pytest.raises(ImageDecodeError):
        read_image_size(b"no")
