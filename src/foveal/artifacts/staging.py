"""Write a directory so that it is either complete under its name, or not there.

Work happens in NAME.partial; `publish` flushes it to the disk and renames it. What a killed process left there is taken
up again by the next one with the same job, and thrown away by another job.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import IO

from foveal.artifacts.passport_file import has_passport
from foveal.artifacts.storage import explain_storage_errors, storage_error
from foveal.core.errors import OutputExistsError

__all__ = ["StagedDirectory", "check_output"]

_CONTROL = ".staging"
_LOCK, _JOB = "lock", "job"


class StagedDirectory:
    """A directory being written. Use it as a context manager; leaving it without `publish` keeps the partial work.

    `job` names what is being made (a digest of source, recipe, calibration): partial work is resumed only if its job is
    the same. `scratch` is a folder for state that resuming needs; it is not published. `force` allows an existing model
    directory to be replaced; it stays until the new one is complete.

    Raises OutputExistsError (also when another process writes the same directory) and StorageError. Inside the `with`,
    errors of the disk become StorageError.
    """

    def __init__(self, final: Path, *, job: str = "", force: bool = False, resume: bool = True) -> None:
        self.final = Path(os.path.abspath(final.expanduser()))
        self.path = self.final.with_name(self.final.name + ".partial")
        self.scratch = self.path / _CONTROL / "scratch"
        self.resumed = False
        """Whether work of an earlier run was found."""
        self._replaced = self.final.with_name(self.final.name + ".replaced")
        self._job, self._force, self._resume = job, force, resume
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> StagedDirectory:
        with explain_storage_errors(self.path):
            check_output(self.final, force=self._force)
            (self.path / _CONTROL).mkdir(parents=True, exist_ok=True)
            self._take_lock()
            try:
                if self._replaced.exists() and not self.final.exists():
                    self._replaced.rename(self.final)  # a run ended between the two renames of `publish`
                    check_output(self.final, force=self._force)
                self._take_up()
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        if error is not None and (explained := storage_error(error, self.path)) is not None:
            raise explained from error

    def publish(self) -> Path:
        """Flush everything, drop the scratch folder and give the directory its final name. Returns that path."""
        with explain_storage_errors(self.path):
            check_output(self.final, force=self._force)
            shutil.rmtree(self.scratch, ignore_errors=True)
            _flush(self.path)
            if self.final.exists():
                shutil.rmtree(self._replaced, ignore_errors=True)
                self.final.rename(self._replaced)
            self.path.rename(self.final)
            # The lock moved along and goes last: a second writer that came before found it taken.
            shutil.rmtree(self.final / _CONTROL)
            _flush_folder(self.final.parent)
        shutil.rmtree(self._replaced, ignore_errors=True)
        return self.final

    def _take_lock(self) -> None:
        self._lock = (self.path / _CONTROL / _LOCK).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise OutputExistsError(
                f"another process is writing {self.path}", "one at a time", "Wait for it, or choose another directory"
            ) from None

    def _take_up(self) -> None:
        job = self.path / _CONTROL / _JOB
        same = job.is_file() and job.read_text() == self._job
        self.resumed = same and self._resume
        if not self.resumed:
            for item in self.path.iterdir():
                if item.name == _CONTROL:
                    shutil.rmtree(self.scratch, ignore_errors=True)
                elif item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item)
                else:
                    item.unlink()
            job.write_text(self._job)
        self.scratch.mkdir(parents=True, exist_ok=True)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def check_output(final: Path, *, force: bool) -> None:
    """Raise OutputExistsError if `final` is there, unless it is a model (or empty) and may be replaced by `force`."""
    if not final.exists():
        return
    if not force:
        raise OutputExistsError(
            f"{final} exists", "a new directory", "Choose another output directory, or replace it with --force"
        )
    if not final.is_dir() or (any(final.iterdir()) and not _is_model(final)):
        raise OutputExistsError(
            f"{final} is not a model directory",
            "one to replace, or a new name",
            "--force replaces only directories with a config.json or passport.json. Choose another output directory",
        )


def _is_model(directory: Path) -> bool:
    return has_passport(directory) or (directory / "config.json").is_file()


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
