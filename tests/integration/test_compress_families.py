"""Every method on every kind of vision-language model: compressed, written, and read back to the same numbers."""

from __future__ import annotations

import pytest
import torch

from foveal.compression.block_compressor import put_in_place
from foveal.compression.calibration import CalibrationSet
from foveal.compression.compressor import compress
from foveal.compression.formats.writer import write_checkpoint
from foveal.models.loading import load_model
from support.prefill_once import prefill_once
from support.tiny_models import tiny_cases, tiny_checkpoint
from support.tiny_recipes import tiny_recipe, tiny_rule

PAIRS = CalibrationSet.from_rendered_tasks(16)
METHODS = {
    "rtn": tiny_rule("rtn", "int8"),
    "gptq": tiny_rule("gptq", "int4-g32", act_order=True),
    "awq": tiny_rule("awq", "int4-g32-asym", grid=2),
    "smoothquant": tiny_rule("smoothquant", "w8a8-dynamic", alpha=0.5),
    "static": tiny_rule("rtn", "w8a8-static"),
    "fp8": tiny_rule("fp8", "fp8"),
}


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3", "smolvlm", "internvl"])
@pytest.mark.parametrize("method", METHODS)
def test_a_compressed_model_is_read_back_to_what_was_measured(family, method, tmp_path):
    source = tiny_checkpoint(family)
    prompt = tiny_cases(family)[0].prompt

    result = compress(source, tiny_recipe(METHODS[method]), PAIRS, tmp_path / "work")
    write_checkpoint(
        source, tmp_path / "out", result.weights, result.schemes, result.replaced, static_inputs=result.static_inputs
    )

    measured = load_model(source, decoder="hf")
    before = prefill_once(measured, prompt)
    with torch.inference_mode():
        put_in_place(measured.hf_model, result)
    expected = prefill_once(measured, prompt)
    found = prefill_once(load_model(tmp_path / "out", decoder="hf"), prompt)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, before, atol=1e-4)
    body = [record for record in result.linears.values() if record.component in ("vision", "projector", "ffn")]
    assert all(
        record.quantised or "convolution" in record.kept_reason or "table" in record.kept_reason for record in body
    )
    measured_losses = [(record.loss, record.rtn_loss) for record in result.linears.values() if record.loss is not None]
    assert sum(loss for loss, _ in measured_losses) <= sum(rtn for _, rtn in measured_losses) * 1.001


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_nf4_needs_no_data_and_is_read_back(family, tmp_path):
    source = tiny_checkpoint(family)
    result = compress(source, tiny_recipe(tiny_rule("nf4", "nf4-g32-dq")), None, tmp_path / "work")
    assert {record.method for record in result.linears.values() if record.quantised} == {"nf4"}
    model = load_model(source, decoder="hf")
    before = prefill_once(model, tiny_cases(family)[0].prompt)
    with torch.inference_mode():
        put_in_place(model.hf_model, result)
    after = prefill_once(model, tiny_cases(family)[0].prompt)
    assert 0.5 < torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0) < 0.99999
