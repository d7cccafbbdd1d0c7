"""The engine measured offline: same answers as ever, parts that add up, stages that switch one thing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from foveal.cli.bench import bench_app
from foveal.cli.profile import profile_app
from foveal.core.errors import ConfigurationError
from foveal.engine.config import EngineConfig
from foveal.engine.offline import OfflineEngine
from foveal.engine.step_spans import SpanTimes, watched
from foveal.evaluation.engine_report import EngineBatch, engine_report
from foveal.evaluation.peers.environment import Participant
from foveal.evaluation.peers.figures import Measurement
from foveal.evaluation.peers.workload import Workload
from foveal.kernels.native.extension import native_kernels
from foveal.pipeline.ablation.run import AblationPlan, load_systems, run_ablation
from foveal.pipeline.ablation.stages import ladder
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import tiny_checkpoint

native = pytest.mark.skipif(native_kernels() is None, reason="native kernels were not built")
PROMPTS = [[7, 9, 11, 13, 15, 17], [8, 10, 12]]


@pytest.fixture(autouse=True, scope="module")
def _denormals_as_before():
    """The engine flushes them to zero for its whole process, which other tests' strategies must not see."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def engine() -> OfflineEngine:
    config = EngineConfig(
        model=str(tiny_checkpoint("llama")),
        dtype="float32",
        decoder="fused",
        num_kv_blocks=256,
        enable_prefix_caching=False,
        num_threads=1,
    )
    return OfflineEngine(config)


class Steady:
    def gb_per_s(self) -> float:
        return 10.0


def test_offline_answers_are_generates(engine: OfflineEngine) -> None:
    answers = engine.generate(PROMPTS, 6)
    model = tiny_hf_model("llama")
    for prompt, ours in zip(PROMPTS, answers.token_ids, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert ours == theirs[0, len(prompt) :].tolist()
    assert len(answers.first_s) == 2
    assert all(0 < first <= answers.total_s for first in answers.first_s)


def test_offline_logits_are_those_of_every_position(engine: OfflineEngine) -> None:
    logits = engine.logits(PROMPTS[0])
    expected = tiny_hf_model("llama")(torch.tensor([PROMPTS[0]])).logits[0]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert engine.generate([PROMPTS[1]], 1).token_ids  # the recording has ended


def test_decoding_begins_when_every_prompt_has_its_first_token(engine: OfflineEngine) -> None:
    begun: list[int] = []
    engine.generate(PROMPTS, 4, when_decoding=lambda: begun.append(engine.loop.stats().num_running))
    assert begun == [2]


def test_the_parts_of_a_step_add_up_and_the_loop_is_left_as_it_was(engine: OfflineEngine) -> None:
    loop = engine.loop
    before = {id(owner): dict(vars(owner)) for owner in (loop, loop.scheduler, loop.runner, loop.runner.model)}
    plain = engine.generate(PROMPTS, 5)
    times = SpanTimes()
    with watched(loop, times.span):
        assert engine.generate(PROMPTS, 5).token_ids == plain.token_ids
    assert times.calls["step"] == times.calls["schedule"] == times.calls["decoder"] == plain.steps
    assert times.total_s == pytest.approx(sum(times.self_s.values()))
    assert 0 < times.outside_kernels_s < times.total_s
    for owner in (loop, loop.scheduler, loop.runner, loop.runner.model):
        assert vars(owner).keys() == before[id(owner)].keys()


def test_every_stage_differs_from_the_one_before_in_one_thing() -> None:
    stages = ladder(4, speculate="draft:somewhere")
    assert stages[-1].name == "+ speculation (draft)"
    for earlier, later in itertools.pairwise(stages[2:]):
        changed = {k for k in later.engine if later.engine.get(k) != earlier.engine.get(k)}
        assert len(changed) == 1, later.name
    assert len({stage.name for stage in stages}) == len(stages) == 13


@native
def test_the_ablation_of_a_float32_ladder_keeps_every_answer() -> None:
    stages = tuple(stage for stage in ladder(2) if "INT" not in stage.name)
    exact = tuple(stage for stage in stages if stage.engine.get("quantize", "none") == "none")
    plan = AblationPlan(str(tiny_checkpoint("llava")), exact, 2, requests=3, new_tokens=16, rounds=2, threads=1)
    told: list[str] = []
    report = run_ablation(plan, load_systems(plan, told.append), Steady(), told.append)
    assert json.loads(json.dumps(report)) == report
    assert [row["stage"] for row in report["rows"]] == [stage.name for stage in exact]
    assert [row["agreement_with_the_first"] for row in report["rows"]] == [1.0] * len(exact)
    assert len(report["passes"]) == 2 * len(exact)


def test_the_engine_report_separates_prefill_from_decode() -> None:
    workload = Workload(2, 50, 11)
    measurement = Measurement(Participant("foveal", "int8"), workload, 0, first_s=0.5, total_s=1.5, gb_per_s=4.0)
    batch = EngineBatch(measurement, (0.2, 0.5), cpu_s=3.0, steps=12)
    report = engine_report("m", {}, [batch], weight_bytes=100_000_000, kv_bytes_per_token=0)
    [row] = report["rows"]
    assert row["decode_tok_s"] == pytest.approx(20.0)
    assert row["prefill_tok_s"] == pytest.approx(200.0)
    assert row["tpot_ms"] == pytest.approx(100.0)
    assert row["output_tok_s"] == pytest.approx(22 / 1.5)
    assert row["busy_cores"] == pytest.approx(2.0)
    assert row["roofline"] == pytest.approx(0.25)
    assert row["ttft_max_ms"] == pytest.approx(500.0)


@native
def test_bench_engine_and_profile_print_and_write_their_figures(tmp_path: Path) -> None:
    model, out = str(tiny_checkpoint("llama")), tmp_path / "out.json"
    common = ["--prompt-tokens", "8", "--new-tokens", "4", "--threads", "1", "--decoder", "native", "--json", str(out)]
    result = CliRunner().invoke(bench_app, ["engine", model, "--concurrency", "2", "--rounds", "1", *common])
    assert result.exit_code == 0, result.output
    assert "of roofline" in result.output
    assert json.loads(out.read_text())["rows"][0]["concurrency"] == 2

    trace = tmp_path / "trace.json"
    result = CliRunner().invoke(profile_app, [model, "--concurrency", "2", "--trace", str(trace), *common])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["phases"]["decode"]["steps"] == 4
    assert any(entry["operator"] == "foveal::decoder" for entry in report["operators"]["decode"])
    assert any(event.get("name") == "foveal::decoder" for event in json.loads(trace.read_text())["traceEvents"])


def test_lengths_that_measure_nothing_are_refused() -> None:
    result = CliRunner().invoke(bench_app, ["engine", "nowhere", "--new-tokens", "1"])
    assert isinstance(result.exception, ConfigurationError)
    result = CliRunner().invoke(bench_app, ["ablation", "nowhere", "--new-tokens", "4"])
    assert isinstance(result.exception, ConfigurationError)
