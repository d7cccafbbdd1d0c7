"""Pixels cross from a preprocessing worker to the engine through files in memory (tmpfs).

A worker writes one segment per request, the engine maps it, and whoever ends the request unlinks it. The directory belongs
to one front end and goes with it; a directory whose owner was killed is removed by the next front end that starts.

Plain files rather than `multiprocessing.shared_memory`: its resource tracker (Python < 3.13) unlinks segments that another
process still uses, and warns about the ones that were handed over on purpose.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foveal.engine.ipc import PackedArray, PackedImage
from foveal.models.image_input import ImageInput

__all__ = ["create_segment_directory", "read_segment", "remove_stale_directories", "unlink_segment", "write_segment"]

_PREFIX = "foveal-"
_ALIGNMENT = 64


def _root() -> Path:
    shm = Path("/dev/shm")
    return shm if shm.is_dir() and os.access(shm, os.W_OK) else Path(tempfile.gettempdir())


def create_segment_directory() -> Path:
    """A fresh private directory named after this process."""
    remove_stale_directories()
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_root()))


def remove_stale_directories() -> None:
    """Remove directories whose owner no longer runs."""
    for path in _root().glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc").exists():
            shutil.rmtree(path, ignore_errors=True)


def write_segment(directory: Path, images: Sequence[ImageInput]) -> tuple[str | None, tuple[PackedImage, ...]]:
    """Write the arrays of all images into one file; returns its name (None without images) and where each array lies."""
    if not images:
        return None, ()
    packed = []
    offset = 0
    name = uuid.uuid4().hex
    path = directory / name
    try:
        with path.open("wb") as file:
            for image in images:
                arrays = []
                start = offset
                for key, array in image.arrays.items():
                    padding = -offset % _ALIGNMENT
                    file.write(b"\0" * padding)
                    offset += padding
                    contiguous = np.ascontiguousarray(array)
                    file.write(contiguous.data)
                    arrays.append(PackedArray(key, contiguous.dtype.str, tuple(array.shape), offset))
                    offset += contiguous.nbytes
                packed.append(
                    PackedImage(
                        image.content_hash, image.num_tokens, image.encode_tokens, tuple(arrays), offset - start
                    )
                )
    except OSError:
        unlink_segment(directory, name)
        raise
    return name, tuple(packed)


def read_segment(directory: Path, name: str | None, packed: Sequence[PackedImage]) -> tuple[ImageInput, ...]:
    """Map the arrays of a segment, read-only. The memory stays until the last array is gone, also after unlinking."""
    if name is None:
        return ()
    memory = np.memmap(directory / name, mode="r", dtype=np.uint8)
    return tuple(
        ImageInput(
            arrays={a.name: _view(memory, a) for a in image.arrays},
            num_tokens=image.num_tokens,
            encode_tokens=image.encode_tokens,
            content_hash=image.content_hash,
        )
        for image in packed
    )


def _view(memory: npt.NDArray[np.uint8], array: PackedArray) -> npt.NDArray[np.generic]:
    return np.ndarray(array.shape, dtype=np.dtype(array.dtype), buffer=memory, offset=array.offset)


def unlink_segment(directory: Path, name: str | None) -> None:
    if name is not None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory / name)
