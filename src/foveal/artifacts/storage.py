"""Say what to do about a disk that is full or a place that cannot be written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foveal.core.errors import FovealError, StorageError

__all__ = ["explain_storage_errors", "storage_error"]

_REMEDIES = {
    errno.ENOSPC: "Free space there, or choose another output directory; finished work is kept and resumed",
    errno.EDQUOT: "Free space there, or choose another output directory; finished work is kept and resumed",
    errno.EACCES: "Change its permissions, or choose another directory",
    errno.EPERM: "Change its permissions, or choose another directory",
    errno.EROFS: "Choose a directory that can be written",
    errno.EIO: "The device reports an error: check it, or choose another",
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "Check the path",
    errno.ENAMETOOLONG: "Choose a shorter name",
}
# Libraries that write from Rust raise their own class, with the number only in the text.
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def explain_storage_errors(place: Path) -> Iterator[None]:
    """Inside, an error of the disk becomes a StorageError that names the file (or `place`) and a remedy."""
    try:
        yield
    except FovealError:
        raise
    except Exception as error:
        explained = storage_error(error, place)
        if explained is None:
            raise
        raise explained from error


def storage_error(error: BaseException, place: Path) -> StorageError | None:
    """The StorageError for `error`, or None if it is about something else."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        match = _RUST_OS_ERROR.search(str(error))
        number = int(match.group(1)) if match else None
    if number not in _REMEDIES:
        return None
    name = (error.filename if isinstance(error, OSError) else None) or place
    text = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}.get(
        number, os.strerror(number).lower()
    )
    return StorageError(f"{name}: {text}", remedy=_REMEDIES[number])
