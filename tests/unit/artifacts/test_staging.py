"""Nothing half-written ever has the final name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from foveal.artifacts.staging import StagedDirectory
from foveal.core.errors import OutputExistsError, StorageError


def _write(staged: StagedDirectory, name: str = "config.json", text: str = "{}") -> None:
    (staged.path / name).write_text(text)


def test_the_final_name_appears_only_when_published(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with StagedDirectory(final) as staged:
        _write(staged)
        (staged.path / "sub").mkdir()
        _write(staged, "sub/a.txt", "a")
        (staged.scratch / "state").write_text("half")
        assert not final.exists()
        assert staged.publish() == final
    assert sorted(path.name for path in final.iterdir()) == ["config.json", "sub"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_keeps_the_partial_work_for_the_same_job(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StagedDirectory(tmp_path / "out", job="a") as staged:
        assert not staged.resumed
        _write(staged)
        (staged.scratch / "state").write_text("layer 3")
        raise KeyboardInterrupt
    assert not (tmp_path / "out").exists()
    with StagedDirectory(tmp_path / "out", job="a") as staged:
        assert staged.resumed
        assert (staged.scratch / "state").read_text() == "layer 3"
        assert (staged.path / "config.json").exists()


@pytest.mark.parametrize(("job", "resume"), [("b", True), ("a", False)])
def test_another_job_starts_from_nothing(tmp_path: Path, job: str, resume: bool) -> None:
    with StagedDirectory(tmp_path / "out", job="a") as staged:
        _write(staged)
        (staged.path / "sub").mkdir()
        (staged.scratch / "state").write_text("x")
    with StagedDirectory(tmp_path / "out", job=job, resume=resume) as staged:
        assert not staged.resumed
        assert [path.name for path in staged.path.iterdir()] == [".staging"]
        assert list(staged.scratch.iterdir()) == []


def test_an_existing_directory_is_not_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    with pytest.raises(OutputExistsError, match="--force"):
        StagedDirectory(tmp_path / "out").__enter__()
    assert not (tmp_path / "out.partial").exists()


def test_force_replaces_a_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    (tmp_path / "out" / "extra.safetensors").write_text("old")
    with StagedDirectory(tmp_path / "out", force=True) as staged:
        _write(staged, text="new")
        assert (tmp_path / "out" / "config.json").read_text() == "old"
        staged.publish()
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"config.json": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_does_not_delete_somebodys_home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="is not a model directory"):
        StagedDirectory(tmp_path / "home", force=True).__enter__()
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_a_directory_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with StagedDirectory(tmp_path / "out") as staged:
        _write(staged)
        (tmp_path / "out").mkdir()
        with pytest.raises(OutputExistsError):
            staged.publish()
        assert (staged.path / "config.json").exists()


def test_a_replacement_cut_short_gives_the_old_model_back(tmp_path: Path) -> None:
    (tmp_path / "out.replaced").mkdir()
    (tmp_path / "out.replaced" / "config.json").write_text("old")
    with pytest.raises(OutputExistsError):
        StagedDirectory(tmp_path / "out").__enter__()
    assert (tmp_path / "out" / "config.json").read_text() == "old"


def test_two_writers_of_one_directory_are_not_let_in(tmp_path: Path) -> None:
    with StagedDirectory(tmp_path / "out", job="a") as first:
        _write(first)
        with pytest.raises(OutputExistsError, match="another process is writing"):
            StagedDirectory(tmp_path / "out", job="b").__enter__()
        assert (first.path / "config.json").exists()
    with StagedDirectory(tmp_path / "out", job="a") as second:
        assert second.resumed


def test_no_other_writer_gets_in_while_the_directory_takes_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one take the old model, set aside for a moment, for what a killed run left."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    rename, refused = Path.rename, []

    def watched(source: Path, target: Path) -> Path:
        with pytest.raises(OutputExistsError, match="another process is writing"):
            StagedDirectory(tmp_path / "out", job="b", force=True).__enter__()
        refused.append(target.name)
        return rename(source, target)

    with StagedDirectory(tmp_path / "out", job="a", force=True) as staged:
        _write(staged, text="new")
        monkeypatch.setattr(Path, "rename", watched)
        staged.publish()
    assert refused == ["out.replaced", "out"]
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"config.json": "new"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.safetensors"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "rust"],
)
def test_a_full_disk_says_that_work_is_kept(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(StorageError, match=r"the disk is full. Free space there.*resumed"),
        StagedDirectory(tmp_path / "out") as staged,
    ):
        _write(staged)
        raise error
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial" / "config.json").exists()


def test_a_really_full_device_is_recognised(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="the disk is full"), StagedDirectory(tmp_path / "out") as staged:
        (staged.path / "weights").symlink_to("/dev/full")
        (staged.path / "weights").write_bytes(b"x")


def test_an_error_that_is_not_about_the_disk_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), StagedDirectory(tmp_path / "out"):
        raise ZeroDivisionError


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Check the path"):
        StagedDirectory(tmp_path / "file" / "out").__enter__()
