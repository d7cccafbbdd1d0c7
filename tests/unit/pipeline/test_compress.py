"""An artefact appears whole or not at all, and the same whether the run was interrupted or not."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foveal.artifacts.model_files import source_digest
from foveal.artifacts.passport import Passport
from foveal.artifacts.passport_file import read_passport
from foveal.artifacts.verification import verify
from foveal.compression.calibration import CalibrationSet
from foveal.compression.recipe import CalibrationPlan
from foveal.compression.recipe_presets import load_recipe
from foveal.core.errors import ConfigurationError, ModelLoadError, OutputExistsError, StorageError
from foveal.pipeline import compress as compress_module
from foveal.pipeline.compress import CompressionJob, calibration_for, compress_model
from foveal.pipeline.reload_check import check_reload
from support.tiny_models import tiny_checkpoint


@pytest.fixture
def quick_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reload in a fresh process has its own test."""
    monkeypatch.setattr(compress_module, "check_reload", lambda directory, result: None)


def job(output: Path, **changes: Any) -> CompressionJob:
    usual = CompressionJob(tiny_checkpoint("llava"), load_recipe("w8a16"), output, None)
    return replace(usual, **changes)


def test_the_artefact_is_complete_verified_and_names_every_layer(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    passport = compress_model(job(tmp_path / "out"), lambda *step: seen.append(step))
    assert verify(tmp_path / "out") == passport
    assert passport.source.digest == source_digest(tiny_checkpoint("llava"))
    assert passport.quantised_linears > 20
    for entry in passport.linears.values():
        assert entry.quantised != bool(entry.kept_reason)
        assert not entry.quantised or (entry.bits == 8 and entry.theory_sqnr_db is not None)
    assert passport.sizes.bytes < 0.5 * passport.sizes.source_bytes
    assert seen[-1] == ("done", seen[-1][2], seen[-1][2])
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.usefixtures("quick_check")
@pytest.mark.parametrize("stop_at", [1, 5, "writing the checkpoint", "writing the passport"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, stop_at: int | str) -> None:
    whole = compress_model(job(tmp_path / "whole"))

    def kill(what: str, done: int, total: int) -> None:
        if stop_at in (what, done) and what != "reading the model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(job(tmp_path / "out"), kill)
    assert not (tmp_path / "out").exists()
    found: list[str] = []
    resumed = compress_model(job(tmp_path / "out"), lambda what, done, total: found.append(what))
    assert sum(what.endswith("(found)") for what in found) >= 1
    assert resumed == whole
    assert resumed.digest == whole.digest


@pytest.mark.usefixtures("quick_check")
def test_blocks_that_other_versions_made_are_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(job(tmp_path / "out"), kill)
    monkeypatch.setattr(compress_module, "tool_versions", lambda: {"torch": "another"})
    found: list[str] = []
    compress_model(job(tmp_path / "out"), lambda what, done, total: found.append(what))
    assert not any(what.endswith("(found)") for what in found)


@pytest.mark.usefixtures("quick_check")
def test_the_passport_names_calibration_files_without_the_path_they_had_here(tmp_path: Path) -> None:
    passports = []
    for folder in ("here", "there"):
        plan = CalibrationPlan(source=f"/{folder}/pairs.jsonl", texts_from=f"/{folder}/english.txt")
        recipe = replace(load_recipe("w8a16"), calibration=plan)
        passports.append(compress_model(job(tmp_path / folder, recipe=recipe)))
    assert passports[0] == passports[1]
    assert passports[0].recipe["calibration"]["source"] == "pairs.jsonl"


@pytest.mark.usefixtures("quick_check")
def test_without_resume_nothing_is_taken_up(tmp_path: Path) -> None:
    def kill(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_model(job(tmp_path / "out"), kill)
    found: list[str] = []
    compress_model(job(tmp_path / "out", resume=False), lambda what, done, total: found.append(what))
    assert not any(what.endswith("(found)") for what in found)


@pytest.mark.usefixtures("quick_check")
def test_a_full_disk_leaves_nothing_under_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(compress_module, "write_checkpoint", full)
        with pytest.raises(StorageError, match="the disk is full"):
            compress_model(job(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert compress_model(job(tmp_path / "out")).quantised_linears


@pytest.mark.usefixtures("quick_check")
def test_an_existing_directory_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    compress_model(job(tmp_path / "out"))
    with pytest.raises(OutputExistsError, match="--force"):
        compress_model(job(tmp_path / "out"))
    recipe = replace(load_recipe("w8a16"), name="another")
    passport = compress_model(job(tmp_path / "out", recipe=recipe, force=True))
    assert read_passport(tmp_path / "out") == passport
    assert passport.recipe["name"] == "another"


@pytest.mark.usefixtures("quick_check")
def test_the_kept_parts_of_a_float32_model_are_stored_in_16_bits_unless_asked_otherwise(tmp_path: Path) -> None:
    compress_model(job(tmp_path / "half"))
    compress_model(job(tmp_path / "full", kept_dtype="float32"))
    sizes = [read_passport(tmp_path / name).sizes.bytes for name in ("half", "full")]
    assert sizes[0] < sizes[1]
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"


def test_the_passport_of_a_calibrated_run_names_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress_module, "check_reload", lambda directory, result: None)
    calibration = calibration_for(CalibrationPlan(samples=16))
    passport = compress_model(job(tmp_path / "out", calibration=calibration))
    assert passport.calibration is not None
    assert passport.calibration.digest == calibration.digest
    assert passport.calibration.samples == 16
    assert any(entry.loss is not None for entry in passport.linears.values())


def test_wrong_weights_on_disk_are_found_by_the_reload_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_numbers(directory: Path, result: Any) -> None:
        name, weight = next(iter(result.weights.items()))
        moved = replace(weight, codes=torch.roll(weight.codes, 1, 0))
        check_reload(directory, replace(result, weights=result.weights | {name: moved}))

    monkeypatch.setattr(compress_module, "check_reload", other_numbers)
    with pytest.raises(ModelLoadError, match="other numbers than were written"):
        compress_model(job(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: {"source": Path("/no/such/model")}, "there is no directory"),
        (lambda: {"output": tiny_checkpoint("llava")}, "both model and output"),
        (lambda: {"recipe": replace(load_recipe("w8a16"), format="zip")}, "format 'zip' is not known"),
        (lambda: {"recipe": load_recipe("w4a16-gptq")}, "needs calibration data"),
        (lambda: {"recipe": replace(load_recipe("nf4"), format="compressed-tensors")}, "--format bnb-nf4"),
    ],
)
def test_mistakes_are_found_before_the_work(tmp_path: Path, change: Callable[[], dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compress_model(replace(job(tmp_path / "out"), **change()))
    assert not (tmp_path / "out").exists()


def test_calibration_is_cut_to_the_number_asked_for(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"q{n}", "answer": "a"}) for n in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines))
    assert len(calibration_for(CalibrationPlan(str(path), samples=12))) == 12
    assert isinstance(calibration_for(CalibrationPlan(samples=5)), CalibrationSet)


def test_two_runs_give_one_passport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress_module, "check_reload", lambda directory, result: None)
    passports: list[Passport] = [compress_model(job(tmp_path / name)) for name in ("one", "two")]
    assert passports[0] == passports[1]
    assert (tmp_path / "one/passport.json").read_bytes() == (tmp_path / "two/passport.json").read_bytes()
