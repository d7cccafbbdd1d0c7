"""What `foveal inspect` shows, and how it ends."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from foveal.artifacts.passport import LinearEntry
from foveal.artifacts.passport_file import record_proof, write_passport
from foveal.cli.inspect import command
from foveal.cli.passport_tables import passport_tables
from foveal.core.errors import ConfigurationError, MissingFileError
from foveal.evaluation.gate import judge
from unit.artifacts.artefacts import make_artefact
from unit.evaluation.evaluations import degrade, make_base


def test_the_passport_is_shown_and_the_files_are_checked(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    result = _inspect(tmp_path)
    assert result.exit_code == 0
    for text in (
        passport.digest,
        "int4-g64",
        "kept: output head",
        "128 samples",
        "20.5 dB",
        "not judged",
        "all 4 files",
    ):
        assert text in result.output


def test_a_changed_file_is_an_exit_code_and_the_passport_is_shown_all_the_same(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "LLAVA"}')
    result = _inspect(tmp_path)
    assert result.exit_code == 1
    assert "config.json has SHA-256" in result.output
    assert "int4-g64" in result.output
    unchecked = _inspect(tmp_path, "--no-verify")
    assert unchecked.exit_code == 0
    assert "digests: not checked" in unchecked.output


def test_an_unreadable_passport_is_an_exit_code(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    (tmp_path / "passport.json").write_text("{")
    result = _inspect(tmp_path)
    assert result.exit_code == 1
    assert "is not JSON" in result.output


@pytest.mark.parametrize("broken", [False, True])
def test_json_says_what_was_found(tmp_path: Path, broken: bool) -> None:
    passport = make_artefact(tmp_path)
    if broken:
        (tmp_path / "tokenizer.json").unlink()
    result = _inspect(tmp_path, "--json")
    record = json.loads(result.stdout)
    assert record["passport"]["passport_digest"] == passport.digest
    assert record["verified"] is not broken
    assert (record["problem"] or {}).get("kind") == ("MissingFileError" if broken else None)
    assert result.exit_code == int(broken)


def test_a_model_without_passport_is_said_to_have_none(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    (tmp_path / "passport.json").unlink()
    result = _inspect(tmp_path)
    assert result.exit_code == 0
    assert "has no passport" in result.output
    assert json.loads(_inspect(tmp_path, "--json").stdout)["passport"] is None


def test_a_place_that_holds_no_model_is_an_error(tmp_path: Path) -> None:
    assert isinstance(_inspect(tmp_path / "none").exception, ConfigurationError)
    assert isinstance(_inspect(tmp_path).exception, MissingFileError)


def test_evaluation_and_verdict_are_shown(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    base = make_base(questions=100)
    candidate = degrade(base, lost=0.5)
    verdict = judge(candidate, base, passport)
    record_proof(tmp_path, evaluation=candidate.for_passport(), verdict=verdict.for_passport())
    result = _inspect(tmp_path)
    assert "Verdict: rejected" in result.output
    assert "task shapes/count" in result.output
    assert "perplexity" in result.output


def test_a_verdict_about_another_passport_does_not_count(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    record_proof(tmp_path, evaluation=None, verdict={"accepted": True, "passport_digest": "sha256:other"})
    assert "about another passport" in _inspect(tmp_path).output


@pytest.mark.parametrize("findings", [3, [1], [{"check": 1}], "all fine"])
def test_a_verdict_of_another_shape_is_said_to_be_unreadable(tmp_path: Path, findings: object) -> None:
    make_artefact(tmp_path)
    record_proof(tmp_path, evaluation=None, verdict={"accepted": True, "findings": findings})
    result = _inspect(tmp_path)
    assert result.exit_code == 0, result.exception
    assert "the verdict cannot be read" in result.output


def test_every_layer_is_listed_on_request_and_the_worst_otherwise(tmp_path: Path) -> None:
    linears = {
        f"layer.{i}": LinearEntry(component="ffn", scheme="int4", sqnr_db=20.0 + i, loss=1.0, rtn_loss=2.0)
        for i in range(15)
    }
    passport = replace(make_artefact(tmp_path), linears=linears)
    write_passport(tmp_path, passport)
    assert "layer.9" in _inspect(tmp_path).output
    assert "layer.14" not in _inspect(tmp_path).output
    assert "layer.14" in _inspect(tmp_path, "--layers").output


def test_markup_in_a_passport_is_text(tmp_path: Path) -> None:
    linears = {"[link=http://evil]x[/]": LinearEntry(component="[red]", kept_reason="[/bold] \x1b]8;;http://evil\x07")}
    passport = replace(make_artefact(tmp_path), linears=linears)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(passport_tables(passport, all_layers=True))
    text = console.export_text()
    assert "[link=http://evil]x[/]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def _inspect(directory: Path, *options: str) -> Result:
    return CliRunner(env={"COLUMNS": "250"}).invoke(command, [str(directory), *options])
