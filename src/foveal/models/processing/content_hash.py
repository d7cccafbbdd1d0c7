"""Identity of a preprocessed image: the key of feature cache and prefix cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["content_hash"]


def content_hash(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """16 bytes over names, element types, shapes and bytes. Wide enough that no two images ever share one."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.view(np.uint8).data if array.ndim else array.tobytes())
    return digest.digest()
