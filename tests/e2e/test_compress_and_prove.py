"""compress, evaluate, prove and inspect as a user types them, on a tiny checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foveal.artifacts.passport_file import read_passport
from support.tiny_models import tiny_checkpoint


def _foveal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "foveal.cli.app", *arguments], capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("artefacts") / "int8"
    arguments = ("--recipe", "w8a16", "--calibration", "none", "--threads", "1", "--json")
    result = _foveal("compress", str(tiny_checkpoint("llava")), "--output", str(output), *arguments)
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["passport_digest"] == read_passport(output).digest
    assert record["quantised_linears"] > 20
    assert record["bytes"] < record["source_bytes"] / 2
    return output


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    """A random model knows no answers: nothing to lose, and too few questions to be sure of it."""
    path = tmp_path / "limits.yaml"
    path.write_text("accept_undecided: true\nimage_sensitivity_kept: 0.1\nimage_kl_kept: 0.1\nperplexity_percent: 50\n")
    return path


SUITE = ("--quick", "--easy-vqa", "none", "--threads", "1")


def test_evaluate_writes_a_record_and_says_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    result = _foveal("evaluate", str(tiny_checkpoint("llava")), *SUITE, "--text", "none", "--output", str(path))
    assert result.returncode == 0, result.stderr
    assert "perplexity is not measured: left out on demand" in result.stderr
    record = json.loads(path.read_text())
    assert record["image_sensitivity"]["items"] > 10
    assert "color" in result.stdout
    assert "peak memory" in result.stdout


def test_prove_writes_verdict_and_report_and_its_exit_code_tells(artefact: Path, tmp_path: Path, limits: Path) -> None:
    report, cache = tmp_path / "report.html", ("--cache-dir", str(tmp_path / "cache"))
    text = tmp_path / "english.txt"
    text.write_text("The sea is wide, and the ship that was lost went far. " * 12)
    base = ("--against", str(tiny_checkpoint("llava")), "--text", str(text))
    result = _foveal(
        "prove", str(artefact), *base, *SUITE, *cache, "--thresholds", str(limits), "--report", str(report), "--json"
    )
    record = json.loads(result.stdout)
    assert record["verdict"]["reasons"] == []
    assert result.returncode == 0, result.stderr
    assert record["verdict"]["accepted"] is True
    assert record["candidate"]["agreement"]["top1"] > 0.5
    verdict = read_passport(artefact).verdict
    assert verdict is not None
    assert verdict["accepted"] is True
    page = report.read_text()
    assert page.startswith("<!DOCTYPE html>") or page.lstrip().lower().startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")

    weights = next(artefact.glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    try:
        result = _foveal("prove", str(artefact), *base, *SUITE, *cache, "--report", str(report))
        assert result.returncode == 1, result.stderr
        assert "rejected" in result.stdout
        assert "Traceback" not in result.stderr
        inspected = _foveal("inspect", str(artefact))
        assert inspected.returncode == 1
    finally:
        weights.write_bytes(whole)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compress", "/no/such/model", "--recipe", "w8a16", "-o", "OUT"), 1, "there is no directory"),
        (("compress", "MODEL", "--recipe", "w4a61-gptq", "-o", "OUT"), 1, "w4a16-gptq"),
        (("compress", "MODEL", "--recipe", "w8a16", "--budget", "60%", "-o", "OUT"), 1, "Use --recipe auto"),
        (("compress", "MODEL", "--format", "zip", "-o", "OUT"), 1, "Use one of: compressed-tensors"),
        (("compress", "MODEL", "-o", "MODEL"), 1, "both model and output"),
        (
            ("compress", "MODEL", "--budget", "60%", "--memory", "1MB", "--texts", "0", "-o", "OUT"),
            1,
            "one or the other",
        ),
        (("compress", "MODEL", "--budget", "lots", "--texts", "0", "-o", "OUT"), 1, "is not a size"),
        (("prove", "/no/such", "--against", "/no/such/base"), 2, "Check the path"),
        (
            ("prove", "/no/such", "--against", "MODEL", "--text", "none", "--easy-vqa", "none"),
            2,
            "there is no directory",
        ),
        (("prove", "MODEL", "--against", "MODEL", "--report", "/no/such/folder/x.html"), 2, "existing directory"),
        (("prove", "MODEL", "--against", "MODEL", "--beside", "MODEL"), 2, "has no passport.json"),
        (("evaluate", "MODEL", "--output", "/no/such/folder/x.json"), 1, "existing directory"),
        (("prove", "MODEL", "--against", "MODEL", "--thresholds", "/no/such.yaml"), 2, "cannot be read"),
        (("evaluate", "/no/such/model", "--text", "none", "--easy-vqa", "none"), 1, "Check the path"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    places = {"MODEL": str(tiny_checkpoint("llava")), "OUT": str(tmp_path / "out")}
    result = _foveal(*(places.get(argument, argument) for argument in arguments))
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
