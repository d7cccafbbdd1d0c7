"""Names for parts of a body: cheap ones for affinity, true ones for caches."""

from __future__ import annotations

from collections.abc import Iterable

import blake3
from msgspec.structs import replace

from foveal.gateway.request.view import ImageRef, RequestView

__all__ = ["digest_bytes", "fingerprint", "prefix_digest", "with_digests"]

Body = bytes | bytearray

_SAMPLES = 16
_SAMPLE_BYTES = 128
_PREFIX_TEXT_CHARS = 8192


def fingerprint(body: Body, start: int, end: int) -> bytes:
    """8 bytes from the length and 16 evenly spread samples of body[start:end]; all of it if it is short.

    Takes 5 microseconds whatever the size, where a true digest of 4 MB takes a millisecond.
    """
    length = end - start
    hasher = blake3.blake3(length.to_bytes(8, "little"))
    if length <= _SAMPLES * _SAMPLE_BYTES:
        hasher.update(body[start:end])
    else:
        last = end - _SAMPLE_BYTES
        step = (last - start) // (_SAMPLES - 1)
        places = [*range(start, start + (_SAMPLES - 1) * step, step), last]
        hasher.update(b"".join([body[at : at + _SAMPLE_BYTES] for at in places]))
    return hasher.digest(8)


def digest_bytes(data: Body | memoryview) -> bytes:
    """BLAKE3, 16 bytes."""
    return blake3.blake3(data).digest(16)


def with_digests(view: RequestView, body: Body) -> RequestView:
    """`view` with every image's `digest`. About 0.25 ms per MB."""
    if all(image.digest for image in view.images):
        return view
    whole = memoryview(body)
    return replace(view, images=tuple(_with_digest(image, whole) for image in view.images))


def _with_digest(image: ImageRef, body: memoryview) -> ImageRef:
    if image.digest:
        return image
    with body[image.start : image.end] as text:
        return replace(image, digest=digest_bytes(text))


def prefix_digest(pieces: Iterable[str]) -> bytes:
    """Of the pieces (model, roles, texts, image fingerprints) in order. Of each the first 8,192 characters count."""
    text = "\0".join([piece[:_PREFIX_TEXT_CHARS] for piece in pieces])
    return blake3.blake3(text.encode("utf-8", "surrogatepass")).digest(16)
