"""Bytes of a picture file -> RGB pixels, with limits checked before anything is decoded. PIL only."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from foveal.core.errors import ImageDecodeError, PayloadTooLargeError

__all__ = ["DEFAULT_MAX_PIXELS", "decode_image", "read_image_size"]

DEFAULT_MAX_PIXELS = 50_000_000
"""Largest picture that is decoded: a 50-megapixel photograph, 150 MB as RGB."""

# Named, because PIL would also start Ghostscript for EPS and try decoders nobody has hardened.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
_ACCEPTED = "PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF"


def read_image_size(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """(width, height) from the header alone, as stored (before any EXIF rotation).

    Raises ImageDecodeError if it is not an image, PayloadTooLargeError above `max_pixels`.
    """
    with _open(data, max_pixels) as image:
        return image.size


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode a picture file into an RGB image as a viewer shows it.

    The first frame of an animation; rotated as its EXIF says; transparency over white; palette, grey, CMYK and 16-bit
    converted. The size in the header is checked first, so that a small file that unpacks to a huge picture costs
    nothing. Raises ImageDecodeError if the bytes are not a complete image, PayloadTooLargeError above `max_pixels`.
    """
    image = _open(data, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        # Decoders of damaged files raise almost anything: OSError, SyntaxError, struct.error, ValueError.
        raise ImageDecodeError(
            f"the image ({image.format}, {image.width} x {image.height}) cannot be decoded: {error}. The file is truncated "
            "or damaged; send a complete one."
        ) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Parses the header only."""
    if not data:
        raise ImageDecodeError(f"the image is empty (0 bytes). Send a {_ACCEPTED} file.")
    try:
        with warnings.catch_warnings():
            # Our own limit below speaks for PIL's decompression bomb warning.
            warnings.simplefilter("ignore")
            Image.init()
            image = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise PayloadTooLargeError(
            f"the image is far over the limit of {max_pixels:,} pixels ({error}). Send a smaller picture."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageDecodeError(
            f"the {len(data):,} bytes are not an image that can be read. Send a {_ACCEPTED} file."
        ) from error
    except Exception as error:
        raise ImageDecodeError(f"the image header cannot be read: {error}. The file is damaged.") from error
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PayloadTooLargeError(
            f"the image has {image.width:,} x {image.height:,} = {pixels:,} pixels; the limit is {max_pixels:,}. Send a "
            "smaller picture."
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: PIL's own conversion clips to 255 instead of scaling.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    elif image.mode == "F":
        low, high = image.getextrema()
        scale = 255.0 / (high - low) if high > low else 0.0
        image = image.point(lambda value: value * scale - low * scale).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
