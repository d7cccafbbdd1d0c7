"""Assembly with fake parts: idempotent, resumable, careful with what is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.artifacts.pinned_wheel import WheelSource
from foveal.demo.assemble import MANIFEST, assemble_demo_model
from foveal.demo.errors import ModelSourceError


class Workshop:
    """Fake download and conversion that count their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched, self.converted, self.fails = folder, 0, 0, False
        self.adapter = folder / "adapter.safetensors"
        self.adapter.write_bytes(b"adapter 1")

    def fetch(self, source: WheelSource, cache: Path) -> Path:
        self.fetched += 1
        return self.folder / source.wheel

    def convert(self, language: Path, vision: Path, adapter: Path, target: Path) -> None:
        self.converted += 1
        (target / "config.json").write_text("{}")
        if self.fails:
            raise KeyboardInterrupt
        (target / "model.safetensors").write_bytes(adapter.read_bytes())

    def run(self, directory: Path) -> Path:
        return assemble_demo_model(
            directory, self.folder, adapter=self.adapter, fetch_part=self.fetch, convert=self.convert
        )


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_second_run_touches_neither_network_nor_files(workshop: Workshop, tmp_path: Path) -> None:
    directory = workshop.run(tmp_path / "model")
    before = (directory / "model.safetensors").stat().st_mtime_ns
    assert workshop.run(tmp_path / "model") == directory
    assert (workshop.fetched, workshop.converted) == (2, 1)
    assert (directory / "model.safetensors").stat().st_mtime_ns == before


def test_a_killed_run_leaves_no_directory_and_the_next_one_finishes(workshop: Workshop, tmp_path: Path) -> None:
    workshop.fails = True
    with pytest.raises(KeyboardInterrupt):
        workshop.run(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    workshop.fails = False
    assert (workshop.run(tmp_path / "model") / "model.safetensors").read_bytes() == b"adapter 1"


def test_a_new_adapter_replaces_the_old_model(workshop: Workshop, tmp_path: Path) -> None:
    workshop.run(tmp_path / "model")
    workshop.adapter.write_bytes(b"adapter 2")
    assert (workshop.run(tmp_path / "model") / "model.safetensors").read_bytes() == b"adapter 2"


def test_a_damaged_file_is_noticed_and_the_model_rebuilt(workshop: Workshop, tmp_path: Path) -> None:
    directory = workshop.run(tmp_path / "model")
    (directory / "config.json").write_text('{"damaged": 1}')
    workshop.run(directory)
    assert (directory / "config.json").read_text() == "{}"


def test_an_unreadable_manifest_means_rebuilding(workshop: Workshop, tmp_path: Path) -> None:
    directory = workshop.run(tmp_path / "model")
    (directory / MANIFEST).write_text("{")
    workshop.run(directory)
    assert workshop.converted == 2


def test_a_folder_with_other_files_is_never_overwritten(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("dear to me")
    with pytest.raises(ModelSourceError, match="1 files that are not a demo model"):
        workshop.run(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").exists()


def test_a_file_in_the_place_of_the_directory_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(ModelSourceError, match="is a file"):
        workshop.run(tmp_path / "model")


def test_a_missing_adapter_is_named(workshop: Workshop, tmp_path: Path) -> None:
    workshop.adapter.unlink()
    with pytest.raises(ModelSourceError, match=r"adapter\.safetensors is missing"):
        workshop.run(tmp_path / "model")


def test_progress_ends_at_one(workshop: Workshop, tmp_path: Path) -> None:
    told: list[float] = []
    assemble_demo_model(
        tmp_path / "model",
        tmp_path,
        lambda stage, share: told.append(share),
        adapter=workshop.adapter,
        fetch_part=workshop.fetch,
        convert=workshop.convert,
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
