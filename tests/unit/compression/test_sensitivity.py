"""Measured damage: a change is felt where it is made, blindness is seen, and a replay is the whole model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from foveal.compression.answer_probe import AnswerProbe
from foveal.compression.asked_pictures import AskedPicture, digest_of, from_rendered_tasks
from foveal.compression.calibration import CalibrationSample
from foveal.compression.calibration_inputs import PreparedSample, prepare_samples
from foveal.compression.groups import DecisionGroup, layout_of
from foveal.compression.prefill import PrefillBatch, build_step, encode, scratch_cache
from foveal.compression.sensitivity import measure_sensitivity, rounded
from foveal.compression.sensitivity_table import SensitivityTable, damage_of
from foveal.compression.shared_prefix import build_shared_step, cache_for
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import parse_linear
from foveal.models.language_model import TransformersModel
from support.tiny_models import FAMILIES, VISION_FAMILIES, tiny_image, tiny_model, tiny_processor

_SAMPLES = ("which colour?", "red"), ("which shape is it?", "a star"), ("which colour?", "blue")


@cache
def _asked(with_pictures: bool) -> tuple[AskedPicture, ...]:
    """Two pictures of one kind, with one and two questions."""
    first, second = (tiny_image(seed) if with_pictures else None for seed in (1, 2))
    return AskedPicture(first, "noise", _SAMPLES[:1]), AskedPicture(second, "noise", _SAMPLES[1:])


def _probe(family: str) -> tuple[TransformersModel, AnswerProbe]:
    model = tiny_model(family)
    return model, AnswerProbe(model, tiny_processor(family), _asked(family in VISION_FAMILIES))


def _prepared(family: str) -> list[PreparedSample]:
    picture = tiny_image(1) if family in VISION_FAMILIES else None
    return prepare_samples([CalibrationSample(picture, *texts) for texts in _SAMPLES], tiny_processor(family))


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_a_shared_beginning_changes_nothing_but_the_cost(family: str) -> None:
    model, samples = tiny_model(family), _prepared(family)
    batch = PrefillBatch(tuple(samples), held_out=False)
    features = encode(model, batch)
    alone = model.forward(build_step(model, batch, features), scratch_cache(model, [batch]))[batch.answer_mask]
    shared = build_shared_step(model, [samples])
    shared.place_features(features[:1])
    together = model.forward(shared.step, cache_for(model, [shared]))[shared.answer_rows]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert shared.num_slots < sum(sample.num_tokens for sample in samples)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_replay_from_the_changed_layer_is_the_whole_model(family: str) -> None:
    model, probe = _probe(family)
    for group in layout_of(model.hf_model).groups:
        with rounded(model, group, parse_linear("int4")):
            replayed = probe.ask(group.component, group.layer)
            whole = (
                probe.ask("vision", None)
                if group.component in ("vision", "projector")
                else probe.ask("embedding", None)
            )
        assert replayed.kl == pytest.approx(whole.kl, rel=1e-3, abs=1e-6), group.name
        assert replayed.dependence == pytest.approx(whole.dependence, rel=1e-3, abs=1e-6), group.name


@pytest.mark.parametrize("family", ["llava", "qwen3", "gpt2"])
def test_the_model_is_put_back_exactly(family: str) -> None:
    model, probe = _probe(family)
    before = {name: tensor.clone() for name, tensor in model.hf_model.state_dict().items()}
    for group in layout_of(model.hf_model).groups:
        with rounded(model, group, parse_linear("w4a8-dynamic")):
            probe.ask(group.component, group.layer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.hf_model.state_dict().items())
    unchanged = probe.ask("embedding", None)
    assert unchanged.kl == 0.0
    assert unchanged == probe.original


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "llama"])
def test_fewer_bits_do_more_damage(family: str) -> None:
    model = tiny_model(family)
    table = measure_sensitivity(
        model,
        tiny_processor(family),
        _asked(family in VISION_FAMILIES),
        source_digest="tiny",
        candidates={"attention": ("int8", "int3"), "ffn": ("int8", "int3"), "embedding": ("int8", "int3")},
    )
    by_scheme = {
        scheme: sum(one.kl + one.text_kl for one in table.measurements if one.scheme == scheme)
        for scheme in ("int8", "int3")
    }
    assert 0 < 20 * by_scheme["int8"] < by_scheme["int3"]


def test_rounding_inputs_is_part_of_the_damage() -> None:
    model, probe = _probe("llava")
    group = next(group for group in layout_of(model.hf_model).groups if group.component == "ffn")
    kl = {}
    for name in ("int8", "w8a8-dynamic", "w8a4-dynamic"):
        with rounded(model, group, parse_linear(name)):
            kl[name] = probe.ask("ffn", group.layer).kl
    assert kl["int8"] < kl["w8a4-dynamic"]
    assert kl["w8a8-dynamic"] < kl["w8a4-dynamic"]


def test_a_model_gone_blind_is_seen_whatever_it_answers() -> None:
    model, probe = _probe("llava")
    assert probe.original.dependence > 0
    with torch.no_grad():
        for parameter in model.hf_model.model.multi_modal_projector.parameters():
            parameter.zero_()
    blind = probe.ask("projector", None)
    assert blind.dependence == pytest.approx(0.0, abs=1e-6)
    damage = damage_of(0.0, 0.0, blind.dependence, probe.original.dependence)
    assert damage == pytest.approx(probe.original.dependence, rel=1e-4)


def test_a_small_loss_of_dependence_weighs_little_and_a_gain_nothing() -> None:
    assert damage_of(0.06, 0.04, 3.96, 4.0) == pytest.approx(0.1 + 4 * 0.01**2)
    assert damage_of(0.1, 0.0, 5.0, 4.0) == 0.1
    assert damage_of(0.1, 0.0, 0.0, 0.0) == 0.1


def test_a_text_only_model_has_damage_without_dependence() -> None:
    model, probe = _probe("llama")
    assert probe.original.dependence == 0.0
    group = layout_of(model.hf_model).groups[1]
    with rounded(model, group, parse_linear("int3")):
        found = probe.ask(group.component, group.layer)
        assert found.text_kl > 0 == found.kl


def test_a_table_is_measured_once(tmp_path: Path) -> None:
    model, processor, asked = tiny_model("llava"), tiny_processor("llava"), _asked(True)
    seen: list[tuple[int, int, str]] = []

    def measure(source: str) -> SensitivityTable:
        seen.clear()
        return measure_sensitivity(
            model,
            processor,
            asked,
            source_digest=source,
            candidates={"head": ("int8",), "projector": ("int8",)},
            progress=lambda *report: seen.append(report),
            cache_dir=tmp_path,
        )

    first = measure("a")
    assert [report[:2] for report in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert measure("a") == first
    assert seen == []
    assert measure("b").source_digest == "b"
    assert seen


@pytest.mark.parametrize("text", ["{", '{"schema_version": 1}'])
def test_a_damaged_cache_is_measured_again_and_one_that_cannot_be_written_is_no_error(
    tmp_path: Path, text: str
) -> None:
    model, asked = tiny_model("llama"), _asked(False)

    def measure(cache_dir: Path) -> SensitivityTable:
        return measure_sensitivity(
            model, tiny_processor("llama"), asked, source_digest="a", candidates={"ffn": ("int8",)}, cache_dir=cache_dir
        )

    first = measure(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(text)
    again = measure(tmp_path)
    assert [one.kl for one in again.measurements] == [one.kl for one in first.measurements]
    assert SensitivityTable.load(kept) == again
    assert len(measure(kept / "no folder").measurements) == len(first.measurements)


def test_an_interrupted_measurement_is_continued(tmp_path: Path) -> None:
    model, asked = tiny_model("llama"), _asked(False)

    def measure(cache_dir: Path | None, stop_at: int) -> SensitivityTable:
        def progress(done: int, _total: int, _name: str) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        return measure_sensitivity(
            model,
            tiny_processor("llama"),
            asked,
            source_digest="tiny",
            candidates={"ffn": ("int8", "int4")},
            progress=progress,
            cache_dir=cache_dir,
        )

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, 5)
    (unfinished,) = tmp_path.iterdir()
    half = SensitivityTable.load(unfinished).measurements
    assert len(half) == 5
    whole = measure(tmp_path, -1)
    assert whole.measurements[:5] == half
    assert [path.name.endswith("unfinished.json") for path in tmp_path.iterdir()] == [False]
    fresh = measure(None, -1)
    assert [one.kl for one in whole.measurements] == [one.kl for one in fresh.measurements]


def test_a_damaged_table_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('{"schema_version": 99}')
    with pytest.raises(ConfigurationError, match="version 99"):
        SensitivityTable.load(path)
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        SensitivityTable.load(path)


def test_a_scheme_that_needs_calibration_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dynamic form"):
        measure_sensitivity(
            tiny_model("llama"),
            tiny_processor("llama"),
            _asked(False),
            source_digest="tiny",
            candidates={"ffn": ("w8a8-static",)},
        )


def test_options_fit_the_model_that_was_measured() -> None:
    model = tiny_model("llama")
    layout = layout_of(model.hf_model)
    table = measure_sensitivity(
        model, tiny_processor("llama"), _asked(False), source_digest="tiny", candidates={"ffn": ("int8",)}
    )
    options = table.options_for(layout)
    assert [len(group) for group in options] == [2 if group.component == "ffn" else 1 for group in layout.groups]
    assert all(group[-1].label == "keep" and group[-1].damage == 0 for group in options)
    other = layout_of(tiny_model("gpt2").hf_model)
    with pytest.raises(ConfigurationError, match="Measure this model"):
        table.options_for(other)


def test_rendered_pictures_are_fixed_and_spread_over_kinds() -> None:
    asked = from_rendered_tasks(8, 2)
    assert digest_of(asked) == digest_of(from_rendered_tasks(8, 2))
    assert digest_of(asked) != digest_of(from_rendered_tasks(8, 2, seed=1))
    kinds = [one.kind for one in asked]
    assert all(kinds.count(kind) == 2 for kind in set(kinds))
    assert all(len(set(one.questions)) == 2 for one in asked)


def test_groups_are_measured_under_every_name_they_have() -> None:
    model = tiny_model("qwen3")
    group: DecisionGroup = next(group for group in layout_of(model.hf_model).groups if group.tied)
    with rounded(model, group, parse_linear("int4")):
        table, head = model.hf_model.get_input_embeddings().weight, model.hf_model.get_output_embeddings().weight
        assert torch.equal(table, head)
        assert table.unique().numel() <= 280 * 16
