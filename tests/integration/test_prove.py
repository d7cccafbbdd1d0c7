"""The gate accepts an honest INT8 model and rejects broken ones, each with the right reason. On a tiny LLaVA."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from foveal.artifacts.file_digests import digest_files
from foveal.artifacts.model_files import model_files, source_digest, weight_bytes
from foveal.artifacts.passport import LinearEntry, Passport, Sizes, Source
from foveal.artifacts.passport_file import read_passport, write_passport
from foveal.artifacts.verification import require_accepted
from foveal.compression.calibration import CalibrationSet
from foveal.compression.recipe_presets import load_recipe
from foveal.compression.records import CompressionResult
from foveal.core.errors import ConfigurationError, VerdictError
from foveal.evaluation.suite import Suite
from foveal.pipeline import compress as compress_module
from foveal.pipeline import prove as prove_module
from foveal.pipeline.compress import CompressionJob, compress_model
from foveal.pipeline.prove import Proof, prove
from support.provable_model import LIMITS, SelfSuite, build_provable_checkpoint
from support.tiny_models import tiny_image


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_provable_checkpoint(tmp_path_factory.mktemp("prove") / "base")


@pytest.fixture(scope="module")
def suite(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    vocabulary = "the sea is wide and a ship was small but it went far".split()  # noqa: SIM905
    words = random.Random(0).choices(vocabulary, k=300)
    text = tmp_path_factory.mktemp("text") / "english.txt"
    text.write_text(" ".join(words))
    return SelfSuite(base, text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def honest(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INT8 weights by the preset, checked by a fresh process."""
    return _compress(base, tmp_path_factory.mktemp("honest") / "int8")


def _compress(base: Path, output: Path, calibration: CalibrationSet | None = None) -> Path:
    compress_model(CompressionJob(base, load_recipe("w8a16"), output, calibration))
    return output


@dataclass(frozen=True)
class Prover:
    base: Path
    suite: Suite
    cache: Path

    def __call__(self, candidate: Path) -> Proof:
        return prove(candidate, self.base, self.suite, thresholds=_limits(), running=False, cache_dir=self.cache)


def _limits():  # type: ignore[no-untyped-def]
    return replace(LIMITS, accept_undecided=True)


@pytest.fixture(scope="module")
def judged(base: Path, suite: Suite, cache: Path) -> Prover:
    return Prover(base, suite, cache)


def _spoiled(
    base: Path, output: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[CompressionResult], CompressionResult]
) -> Path:
    """An artefact with a sound passport whose weights were spoiled before they were written."""
    sound = compress_module.compress
    monkeypatch.setattr(compress_module, "compress", lambda *a, **k: spoil(sound(*a, **k)))
    monkeypatch.setattr(compress_module, "check_reload", lambda *a: None)
    return _compress(base, output)


def _copy(artefact: Path, target: Path) -> Path:
    shutil.copytree(artefact, target)
    return target


def test_an_honest_int8_model_is_accepted_and_its_passport_says_so(judged: Prover, honest: Path) -> None:
    digest = read_passport(honest).digest
    proof = judged(honest)
    assert proof.verdict.accepted, proof.verdict.reasons
    passport = read_passport(honest)
    assert passport.digest == digest
    assert passport.evaluation is not None
    require_accepted(passport, honest)
    assert proof.candidate is not None
    assert proof.candidate.agreement is not None
    assert proof.candidate.agreement.greedy_exact > 0.9


def test_the_base_is_measured_once_for_all_candidates(
    judged: Prover, honest: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(honest)
    measured: list[Path] = []
    sound = prove_module.evaluate_model
    monkeypatch.setattr(
        prove_module, "evaluate_model", lambda path, *a, **k: measured.append(path) or sound(path, *a, **k)
    )
    assert judged(honest).verdict.accepted
    assert measured == [honest]


def test_a_tower_quantised_to_garbage_is_rejected_for_its_answers(
    judged: Prover, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(result: CompressionResult) -> CompressionResult:
        weights = dict(result.weights)
        for name, quantised in weights.items():
            if "vision_tower" in name:
                mixed = torch.randperm(quantised.codes.numel(), generator=torch.Generator().manual_seed(0))
                weights[name] = replace(quantised, codes=quantised.codes.flatten()[mixed].view_as(quantised.codes))
        return replace(result, weights=weights)

    verdict = judged(_spoiled(base, tmp_path / "garbage", monkeypatch, spoil)).verdict
    assert not verdict.accepted
    assert any(reason.startswith("task what: ") and "not by chance" in reason for reason in verdict.reasons)
    assert not any(reason.startswith("perplexity") for reason in verdict.reasons)


def test_a_zeroed_projector_is_rejected_because_the_model_answers_without_looking(
    judged: Prover, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(result: CompressionResult) -> CompressionResult:
        names = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")
        shapes = {"linear_1.weight": (64, 32), "linear_2.weight": (64, 64)}
        blind = {f"model.multi_modal_projector.{name}": torch.zeros(shapes.get(name, (64,))) for name in names}
        return replace(result, replaced=result.replaced | blind)

    verdict = judged(_spoiled(base, tmp_path / "blind", monkeypatch, spoil)).verdict
    assert not verdict.accepted
    for probe in ("swap", "blank", "shuffled"):
        assert any(
            reason.startswith(f"image {probe}: the model answers without looking") for reason in verdict.reasons
        ), verdict.reasons


def test_a_model_with_no_layer_quantised_is_rejected(judged: Prover, base: Path, tmp_path: Path) -> None:
    directory = _copy(base, tmp_path / "untouched")
    linears = {"model.language_model.layers.0.mlp.up_proj": LinearEntry(component="ffn", kept_reason="no rule")}
    write_passport(
        directory,
        Passport(
            source=Source(name="base", digest=source_digest(base)),
            recipe={"name": "typo"},
            linears=linears,
            sizes=Sizes(source_bytes=weight_bytes(base), bytes=weight_bytes(directory)),
            files=digest_files(directory, model_files(directory)),
        ),
    )
    verdict = judged(directory).verdict
    assert not verdict.accepted
    assert "none of the 1 linear layers" in verdict.reasons[0]


def test_a_truncated_file_is_rejected_before_anything_is_measured(judged: Prover, honest: Path, tmp_path: Path) -> None:
    directory = _copy(honest, tmp_path / "short")
    weights = next(directory.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    proof = judged(directory)
    assert not proof.verdict.accepted
    assert proof.candidate is None
    assert weights.name in proof.verdict.reasons[0]
    with pytest.raises(VerdictError, match="rejected"):
        require_accepted(read_passport(directory), directory)


def test_a_passport_that_was_edited_is_rejected(judged: Prover, honest: Path, tmp_path: Path) -> None:
    directory = _copy(honest, tmp_path / "edited")
    path = directory / "passport.json"
    record = json.loads(path.read_text())
    record["sizes"]["bytes"] = 1
    path.write_text(json.dumps(record))
    verdict = judged(directory).verdict
    assert not verdict.accepted
    assert "changed after it was written" in verdict.reasons[0]


def test_weights_that_were_changed_are_rejected(judged: Prover, honest: Path, tmp_path: Path) -> None:
    directory = _copy(honest, tmp_path / "changed")
    weights = next(directory.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    verdict = judged(directory).verdict
    assert not verdict.accepted
    assert "SHA-256" in verdict.reasons[0]


def test_another_base_than_the_one_it_was_made_from_is_rejected(
    judged: Prover, honest: Path, base: Path, tmp_path: Path
) -> None:
    other = _copy(base, tmp_path / "other")
    (other / "chat_template.jinja").write_text((other / "chat_template.jinja").read_text() + " ")
    verdict = replace(judged, base=other)(_copy(honest, tmp_path / "candidate")).verdict
    assert any(reason.startswith("base: ") for reason in verdict.reasons)


class _Noise(CalibrationSet):
    """What compression refuses, let through."""

    def refuse_unfit(self, *, supports_images: bool = True) -> None:
        pass


def test_calibration_on_noise_is_refused_by_compression_and_by_the_gate(
    judged: Prover, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = CalibrationSet.from_rendered_tasks(16)
    samples = tuple(replace(s, picture=tiny_image(i, (64, 64))) for i, s in enumerate(rendered.samples))
    with pytest.raises(Exception, match="noise"):
        _compress(base, tmp_path / "refused", CalibrationSet(samples, "noise"))
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr(compress_module, "check_reload", lambda *a: None)
    verdict = judged(_compress(base, tmp_path / "noise", _Noise(samples, "noise"))).verdict
    assert not verdict.accepted
    assert any(reason.startswith("calibration: unfit") for reason in verdict.reasons)


def test_a_candidate_that_is_no_directory_is_an_error_and_no_verdict(judged: Prover, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no directory"):
        judged(tmp_path / "typo")


def test_a_candidate_that_does_not_load_is_rejected_before_the_base_is_measured(
    judged: Prover, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prove_module, "_base", None)
    directory = _copy(base, tmp_path / "unloadable")
    weights = next(directory.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    verdict = judged(directory).verdict
    assert not verdict.accepted
    assert "does not load" in verdict.reasons[0]
