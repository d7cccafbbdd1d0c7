"""Any picture a client may send becomes RGB, or an error that says what to do."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from foveal.core.errors import ImageDecodeError, PayloadTooLargeError
from foveal.models.processing.image_decode import decode_image, read_image_size


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_formats_keep_size_and_colour(kind):
    image = decode_image(encoded(Image.new("RGB", (9, 5), (255, 0, 0)), kind))

    assert (image.mode, image.size) == ("RGB", (9, 5))
    red, green, blue = image.getpixel((4, 2))
    assert red > 240
    assert max(green, blue) < 15


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    data = encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)

    assert decode_image(data).size == (4, 8)
    assert read_image_size(data) == (8, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    data = encoded(image.convert(mode)) if mode != "P" else encoded(image.convert("P"), transparency=0)

    assert decode_image(data).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK"])
def test_other_colour_spaces_are_converted(mode):
    data = encoded(Image.new(mode, (4, 4)), "TIFF")
    assert decode_image(data).mode == "RGB"


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    pixels = np.array([[0, 32896, 65535]], dtype=np.uint16)

    image = decode_image(encoded(Image.fromarray(pixels)))

    assert [image.getpixel((x, 0))[0] for x in range(3)] == pytest.approx([0, 128, 255], abs=1)


def test_the_first_frame_of_an_animation_is_shown():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert decode_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_a_huge_picture_is_refused_by_its_header_alone():
    with pytest.raises(PayloadTooLargeError, match=r"10,000 x 10,000 = 100,000,000 pixels; the limit is 50,000,000"):
        decode_image(png_header(10_000, 10_000))


def test_a_decompression_bomb_is_refused():
    with pytest.raises(PayloadTooLargeError, match="Send a smaller picture"):
        decode_image(png_header(60_000, 60_000))


def test_the_pixel_limit_is_inclusive():
    data = encoded(Image.new("RGB", (10, 10)))

    assert decode_image(data, max_pixels=100).size == (10, 10)
    with pytest.raises(PayloadTooLargeError):
        decode_image(data, max_pixels=99)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)

    with pytest.raises(ImageDecodeError):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"not an image", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_is_refused_with_the_formats_that_are(data):
    with pytest.raises(ImageDecodeError, match="Send a PNG, JPEG"):
        decode_image(data)
