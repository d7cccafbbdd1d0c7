"""A directory that is not what its passport says is refused, each time for the right reason."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from foveal.artifacts.file_digests import FileEntry, digest_files
from foveal.artifacts.model_files import source_digest
from foveal.artifacts.passport_file import record_proof, write_passport
from foveal.artifacts.verification import require_accepted, verify
from foveal.core.errors import (
    ChangedFileError,
    ExtraWeightsError,
    MissingFileError,
    NothingQuantisedError,
    PassportSchemaError,
    TruncatedFileError,
    VerdictError,
)
from unit.artifacts.artefacts import LINEARS, make_artefact

WEIGHTS = "model-00001-of-00002.safetensors"


def test_an_untouched_artefact_passes(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    assert verify(tmp_path) == passport


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    seen: list[tuple[int, int]] = []
    verify(tmp_path, progress=lambda done, total: seen.append((done, total)))
    total = sum(entry.bytes for entry in passport.files.values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_truncated_file_is_found_by_its_length(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    path = tmp_path / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedFileError, match=r"10,239 bytes; expected 10,240\. Copy the artefact again"):
        verify(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_one_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    make_artefact(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChangedFileError, match=name):
        verify(tmp_path)


def test_a_longer_file_is_changed_not_truncated(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    with (tmp_path / WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ChangedFileError, match="10,241 bytes"):
        verify(tmp_path)


def test_missing_files_are_counted(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(MissingFileError, match=r"is missing \(and 1 more files\)"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "name", ["extra.safetensors", "pytorch_model.bin", "modeling_evil.py", "original/consolidated.pth"]
)
def test_a_file_that_a_loader_might_prefer_is_refused(tmp_path: Path, name: str) -> None:
    make_artefact(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ExtraWeightsError, match=name):
        verify(tmp_path)


def test_files_that_no_loader_reads_may_come_and_go(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    (tmp_path / "report.html").write_text("<p>")
    (tmp_path / "README.md").unlink()
    verify(tmp_path)


def test_zero_layers_quantised_is_refused(tmp_path: Path) -> None:
    kept = {"lm_head": LINEARS["lm_head"]}
    make_artefact(tmp_path, linears=kept)
    with pytest.raises(NothingQuantisedError, match="none of the 1 linear layers"):
        verify(tmp_path)


def test_a_pruned_model_need_not_be_quantised(tmp_path: Path) -> None:
    make_artefact(tmp_path, linears={}, kind="pruned")
    verify(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../b.bin"])
def test_a_passport_cannot_point_outside_its_directory(tmp_path: Path, name: str) -> None:
    passport = make_artefact(tmp_path)
    write_passport(tmp_path, replace(passport, files=passport.files | {name: FileEntry(1, "00")}))
    with pytest.raises(PassportSchemaError, match="names inside the directory"):
        verify(tmp_path)


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    data = b"0123456789" * 1_000_000
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "b.bin").write_bytes(b"")
    found = digest_files(tmp_path, ["b.bin", "a.bin"])
    assert list(found) == ["a.bin", "b.bin"]
    assert found["a.bin"] == FileEntry(len(data), hashlib.sha256(data).hexdigest())
    assert found["b.bin"] == FileEntry(0, hashlib.sha256(b"").hexdigest())


def test_the_passport_knows_the_digest_that_its_directory_has_as_a_source(tmp_path: Path) -> None:
    assert make_artefact(tmp_path).model_digest == source_digest(tmp_path)


def test_a_source_digest_ignores_what_no_loader_reads(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    before = source_digest(tmp_path)
    (tmp_path / "README.md").write_text("changed")
    (tmp_path / "passport.json").unlink()
    assert source_digest(tmp_path) == before
    (tmp_path / "config.json").write_text("{}")
    assert source_digest(tmp_path) != before


def test_a_folder_without_weights_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MissingFileError, match="has no weights"):
        source_digest(tmp_path)


def test_only_an_accepting_verdict_about_this_passport_counts(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    with pytest.raises(VerdictError, match="has not been judged"):
        require_accepted(passport, tmp_path)
    for verdict, message in (
        ({"accepted": True, "passport_digest": "sha256:other"}, "is about passport sha256:other"),
        (
            {"accepted": False, "passport_digest": passport.digest, "reasons": ["the model went blind"]},
            "the model went blind",
        ),
        ({"accepted": "yes", "passport_digest": passport.digest}, "no reason is recorded"),
        ({"accepted": False, "passport_digest": passport.digest, "reasons": 3}, "no reason is recorded"),
    ):
        with pytest.raises(VerdictError, match=message):
            require_accepted(record_proof(tmp_path, evaluation=None, verdict=verdict), tmp_path)
    good = record_proof(tmp_path, evaluation=None, verdict={"accepted": True, "passport_digest": passport.digest})
    require_accepted(good, tmp_path)
