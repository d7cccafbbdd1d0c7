"""Compression of whole tiny models: what is decided for each matrix, and what is recorded."""

from __future__ import annotations

import pytest
import torch

from foveal.compression.calibration import CalibrationSample, CalibrationSet
from foveal.compression.calibration_fitness import CalibrationUnfitError
from foveal.compression.compressor import compress, job_digest
from foveal.compression.recipe import LayerRange, RecipeRule
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import quantise
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import tiny_checkpoint
from support.tiny_recipes import tiny_recipe, tiny_rule

PAIRS = CalibrationSet.from_rendered_tasks(16)
TEXTS = CalibrationSet(tuple(CalibrationSample(None, s.question, s.answer, s.task) for s in PAIRS.samples), "texts")
LAYER = "model.language_model.layers"


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


def weight_of(name, family="llava"):
    return tiny_hf_model(family).get_submodule(name).weight.detach()


def test_every_matrix_has_a_record_that_says_how_or_why_not(work):
    recipe = tiny_recipe(tiny_rule("rtn", "int8"), tiny_rule("keep", None, ("head",), reason="answers hang on it"))
    result = compress(tiny_checkpoint("llava"), recipe, PAIRS, work)

    model = tiny_hf_model("llava")
    expected = {name for name, module in model.named_modules() if getattr(module, "weight", torch.zeros(1)).dim() > 1}
    assert set(result.linears) == expected
    for record in result.linears.values():
        assert (record.scheme_name is None) != (record.kept_reason is None)
        assert record.quantised == (record.name in result.weights)
        assert record.bytes_after <= record.bytes_before
    assert result.linears["lm_head"].kept_reason == "answers hang on it"
    assert "no rule of recipe test" in result.linears["model.language_model.embed_tokens"].kept_reason
    assert "convolution" in result.linears["model.vision_tower.embeddings.patch_embedding"].kept_reason
    assert "positions" in result.linears["model.vision_tower.embeddings.position_embedding"].kept_reason


def test_rounding_without_data_is_plain_rounding(work):
    result = compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule("rtn", "int8")), None, work)
    name = f"{LAYER}.1.mlp.down_proj"
    assert torch.equal(result.weights[name].codes, quantise(weight_of(name), result.schemes[name].weight).codes)
    assert result.linears[name].loss is None
    assert result.linears[name].sqnr_db > 35


@pytest.mark.parametrize(
    ("method", "scheme"),
    [("gptq", "int4-g32"), ("awq", "int4-g32"), ("smoothquant", "w8a8-dynamic"), ("rtn", "w8a8-static")],
)
def test_methods_that_learn_from_data_are_refused_without_it(work, method, scheme):
    with pytest.raises(ConfigurationError, match=f"method {method} .*needs calibration data"):
        compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule(method, scheme)), None, work)


def test_unfit_data_is_refused_before_anything_is_computed(work):
    with pytest.raises(CalibrationUnfitError, match="at least 16"):
        compress(
            tiny_checkpoint("llava"),
            tiny_recipe(tiny_rule("rtn", "int8")),
            CalibrationSet(PAIRS.samples[:4], "x"),
            work,
        )


def test_gptq_is_taken_only_where_it_beats_rounding_on_samples_held_out(work):
    recipe = tiny_recipe(tiny_rule("gptq", "int4-g32", act_order=True))
    result = compress(tiny_checkpoint("llava"), recipe, PAIRS, work)
    measured = [record for record in result.linears.values() if record.loss is not None]
    assert len(measured) == 41
    for record in measured:
        assert record.loss <= record.rtn_loss * 1.001
        lost = record.note is not None and "gptq lost on held-out inputs" in record.note
        assert record.method == ("rtn" if lost else "gptq")
    assert sum(record.loss for record in measured) < 0.6 * sum(record.rtn_loss for record in measured)


def test_where_gptq_is_worse_on_held_out_inputs_rounding_is_taken_and_the_record_says_so(work, monkeypatch):
    from foveal.compression import block_compressor

    def spoiled(weight, hessian, scheme, **options):
        return quantise(weight * 1.3, scheme)

    monkeypatch.setattr(block_compressor, "gptq", spoiled)
    recipe = tiny_recipe(tiny_rule("gptq", "int4-g32", ("ffn",)))
    result = compress(tiny_checkpoint("llava"), recipe, PAIRS, work)
    record = result.linears[f"{LAYER}.0.mlp.up_proj"]
    assert record.method == "rtn"
    assert "gptq lost on held-out inputs" in record.note
    name = f"{LAYER}.0.mlp.up_proj"
    assert torch.equal(result.weights[name].codes, quantise(weight_of(name), result.schemes[name].weight).codes)


def test_a_group_that_does_not_divide_falls_back_and_the_record_says_so(work):
    result = compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule("rtn", "int4-g64", ("ffn",))), PAIRS, work)
    record = result.linears[f"{LAYER}.0.mlp.down_proj"]  # 96 inputs
    assert record.scheme_name == "int4-g32"
    assert "group 64 does not divide 96: groups of 32" in record.note
    assert result.linears[f"{LAYER}.0.mlp.up_proj"].scheme_name == "int4-g64"


def test_methods_may_differ_by_layer(work):
    first, last = tiny_rule("awq", "int4-g32-asym", grid=4), tiny_rule("gptq", "int4-g32")
    rules = [
        RecipeRule(first.rule, ("attention", "ffn"), (LayerRange(0, 1),)),
        RecipeRule(last.rule, ("attention", "ffn"), (LayerRange(2, None),)),
    ]
    result = compress(tiny_checkpoint("llava"), tiny_recipe(*rules), PAIRS, work)
    schemes = [result.linears[f"{LAYER}.{layer}.mlp.gate_proj"].scheme_name for layer in range(3)]
    assert schemes == ["int4-g32-asym", "int4-g32-asym", "int4-g32"]
    assert any("gamma" in (record.note or "") for record in result.linears.values())
    assert f"{LAYER}.0.input_layernorm.weight" in result.replaced
    assert not any(name.startswith(f"{LAYER}.2") for name in result.replaced)


def test_linears_that_no_scale_can_reach_say_why(work):
    recipe = tiny_recipe(tiny_rule("awq", "int4-g32", ("vision",), grid=4))
    result = compress(tiny_checkpoint("llava"), recipe, PAIRS, work)
    record = result.linears["model.vision_tower.encoder.layers.0.mlp.fc2"]
    assert record.method in ("awq", "rtn")
    assert "no scale: a GELU stands between" in record.note


def test_a_kept_linear_that_shares_a_scaled_input_is_multiplied_with_it(work):
    rules = [
        RecipeRule(tiny_rule("keep").rule, modules=r"o_proj$"),
        tiny_rule("awq", "int3-g32", ("attention",), grid=4),
    ]
    result = compress(tiny_checkpoint("llama"), tiny_recipe(*rules), TEXTS, work)
    scaled = {name for name in result.replaced if name.endswith("layernorm.weight")}
    assert scaled
    assert not {name for name in result.replaced if name.removesuffix(".weight") in result.weights}


def test_zero_quantised_linears_are_an_error(work):
    recipe = tiny_recipe(tiny_rule("rtn", "int8", ("attention", "ffn")))
    with pytest.raises(ConfigurationError, match=r"wants 12 matrices quantised, and none could be: .*Conv1D"):
        compress(tiny_checkpoint("gpt2"), recipe, TEXTS, work)
    with pytest.raises(ConfigurationError, match="quantises nothing"):
        compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule("keep")), PAIRS, work)


def test_uniform_two_bit_is_refused_and_three_bit_warns(work):
    with pytest.raises(ConfigurationError, match="uniform 2-bit"):
        tiny_recipe(tiny_rule("rtn", "int2-g32"))
    result = compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule("rtn", "int3-g32")), None, work)
    assert any("3 bits" in warning for warning in result.warnings)


def test_tied_embedding_and_head_are_one_weight_with_two_records(work):
    recipe = tiny_recipe(tiny_rule("rtn", "int8", ("embedding", "head")))
    result = compress(tiny_checkpoint("qwen3"), recipe, TEXTS, work)
    assert set(result.weights) == {"model.embed_tokens"}
    table, head = result.linears["model.embed_tokens"], result.linears["lm_head"]
    assert table.scheme_name == head.scheme_name == "int8"
    assert head.note == "one tensor with model.embed_tokens"
    assert head.bytes_after == 0 < table.bytes_after


def test_a_head_of_its_own_learns_from_the_final_hidden_states(work):
    recipe = tiny_recipe(tiny_rule("gptq", "int4-g32", ("head",)))
    result = compress(tiny_checkpoint("llava"), recipe, PAIRS, work)
    head = result.linears["lm_head"]
    assert (head.method, set(result.weights)) == ("gptq", {"lm_head"})
    assert head.loss < head.rtn_loss


def test_a_bare_parameter_is_recorded_as_kept(work):
    result = compress(tiny_checkpoint("gemma3"), tiny_recipe(tiny_rule("rtn", "int8")), None, work)
    record = result.linears["model.multi_modal_projector.mm_input_projection_weight"]
    assert (record.component, record.quantised) == ("projector", False)
    assert "bare parameter" in record.kept_reason


def test_static_inputs_have_one_calibrated_range_each(work):
    result = compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule("rtn", "w8a8-static", ("ffn",))), PAIRS, work)
    assert result.static_inputs.keys() == result.weights.keys()
    assert all(float(static.scale) > 0 for static in result.static_inputs.values())


def test_image_tokens_get_the_weight_with_the_least_divergence(work):
    recipe = tiny_recipe(tiny_rule("gptq", "int4-g32", ("attention", "ffn")), image_weight="auto")
    result = compress(tiny_checkpoint("idefics3"), recipe, PAIRS, work)
    losses = result.image_weight_losses
    assert set(losses) == {1.0, 0.1, 0.3, 3.0}
    assert losses[result.image_weight] <= losses[1.0]
    assert result.image_weight == 1.0 or losses[result.image_weight] == min(losses.values())


def test_a_given_image_weight_is_not_searched_and_changes_the_result(tmp_path):
    rule = tiny_rule("gptq", "int4-g32", ("attention",))
    results = [
        compress(tiny_checkpoint("llava"), tiny_recipe(rule, image_weight=weight), PAIRS, tmp_path / str(weight))
        for weight in (1.0, 0.01)
    ]
    name = f"{LAYER}.0.self_attn.o_proj"
    assert [result.image_weight_losses for result in results] == [{}, {}]
    assert not torch.equal(results[0].weights[name].codes, results[1].weights[name].codes)


def test_progress_counts_every_block_once(work):
    seen = []
    compress(tiny_checkpoint("llava"), tiny_recipe(tiny_rule("rtn", "int8")), PAIRS, work, progress=seen.append)
    assert [step.done for step in seen] == list(range(1, seen[-1].total + 1))
    assert {step.name for step in seen} >= {f"{LAYER}.{layer}" for layer in range(3)}
    assert not any(step.resumed for step in seen)


def test_the_job_is_another_for_another_model_recipe_or_data():
    recipe, other = tiny_recipe(tiny_rule("rtn", "int8")), tiny_recipe(tiny_rule("rtn", "int4-g32"))
    jobs = {job_digest("a", recipe, PAIRS), job_digest("b", recipe, PAIRS), job_digest("a", other, PAIRS)}
    jobs |= {job_digest("a", recipe, None), job_digest("a", recipe, TEXTS)}
    assert len(jobs) == 5
