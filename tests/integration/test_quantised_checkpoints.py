"""A model in every layout: written, loaded by our engine's loader and by transformers alone, with the same numbers."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
import transformers

from foveal.compression.formats import reload_check
from foveal.compression.formats.plain_transformers import (
    load_plain,
    needs_dequantising,
    switch_off_rounding,
    unreadable_reason,
)
from foveal.compression.formats.reload_check import verify_reload
from foveal.compression.formats.reload_probe import ReloadProbe
from foveal.core.errors import ModelLoadError
from foveal.kernels.attention_batch import AttentionBatch
from foveal.models.base import ModelStep
from foveal.models.language_model import TransformersModel
from foveal.models.loading import load_checkpoint, load_model
from foveal.models.quantised.packed_linears import RoundedPackedLinear
from support.quantised_checkpoints import all_linears, tables, write_rounded
from support.step_driver import BLOCK_SIZE, new_kv_cache, span_ids_of
from support.tiny_models import FAMILIES, FUSED_FAMILIES, tiny_cases, transformers_inputs

NAMED_FAMILIES = ("llava", "qwen2_5_vl", "idefics3", "smolvlm", "internvl")


def by_component(name: str, module: torch.nn.Module) -> str | None:
    """Three layouts in one checkpoint: tower W8A8, attention int8, MLP int4; projector and head are kept."""
    tower = any(part in name for part in ("vision_tower", "vision_model", "visual"))
    if tower and ("blocks" in name or "encoder" in name):
        return all_linears("w8a8-dynamic")(name, module)
    if "layers" not in name or tower:
        return None
    return all_linears("int8" if "attn" in name else "int4-g16")(name, module)


SCHEMES = {
    "int4": ("compressed-tensors", all_linears("int4-g16")),
    "int4-asym": ("compressed-tensors", all_linears("int4-g16-asym")),
    "int3": ("compressed-tensors", all_linears("int3-g32")),
    "int8": ("compressed-tensors", all_linears("int8")),
    "fp8": ("compressed-tensors", all_linears("fp8")),
    "w8a8": ("compressed-tensors", all_linears("w8a8-dynamic")),
    "w8a8-static": ("compressed-tensors", all_linears("w8a8-static-asym")),
    "mixed": ("compressed-tensors", by_component),
    "table": ("compressed-tensors", tables("int8-asym")),
    "gptq": ("gptq", all_linears("int4-g16")),
    "awq": ("awq", all_linears("int4-g16-asym")),
    "nf4": ("bnb-nf4", all_linears("nf4-g32")),
    "nf4-dq": ("bnb-nf4", all_linears("nf4-g32-dq")),
}


def prompt_of(family: str):
    return tiny_cases(family)[0].prompt


@torch.inference_mode()
def transformers_logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    """[T, vocabulary] of a prompt with a picture, where the family takes one."""
    if hasattr(model.model if hasattr(model, "model") else model, "rope_deltas"):
        model.model.rope_deltas = None
    return model(**transformers_inputs(family, prompt_of(family))).logits[0]


@torch.inference_mode()
def engine_logits(model: TransformersModel) -> torch.Tensor:
    """The same, through our decoder and paged attention."""
    prompt = prompt_of(model.family.model_type)
    length = len(prompt.token_ids)
    positions, _ = model.rope_positions(prompt)
    mask, features = None, None
    if prompt.images:
        mask = torch.zeros(length, dtype=torch.bool)
        for span in prompt.spans:
            mask[span.offset : span.offset + span.length] = True
        features = torch.cat(model.encode_images(prompt.images))
    blocks = torch.arange(-(-length // BLOCK_SIZE))[None]
    spans = [span_ids_of(prompt)] if model.spec.atomic_image_spans else None
    batch = AttentionBatch(torch.arange(length), blocks, [0, length], [length], spans)
    step = ModelStep(torch.tensor(prompt.token_ids), positions, mask, features, batch)
    return model.compute_logits(model.forward(step, new_kv_cache(model)))


@contextlib.contextmanager
def quietly():
    """compressed-tensors and bitsandbytes warn about what we ask of them on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    ("family", "kind"),
    [("llava", kind) for kind in SCHEMES]
    + [(family, kind) for family in NAMED_FAMILIES[1:] for kind in ("int4-asym", "mixed", "gptq", "awq", "nf4-dq")],
)
def test_loaded_weights_are_the_quantised_ones_to_the_bit(family, kind, tmp_path):
    format_name, scheme_of = SCHEMES[kind]
    written = write_rounded(family, tmp_path / "out", scheme_of, format_name)

    loaded = load_checkpoint(written.path)

    assert {name: loaded.quantised_linears[name] for name in written.schemes} == written.schemes
    state, expected = loaded.model.state_dict(), written.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    for name, weight in written.quantised.items():
        assert torch.equal(loaded.model.get_submodule(name).weight, weight.dequantise())
    assert torch.equal(transformers_logits(loaded.model, family), transformers_logits(written.model, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_quantised_and_runs_in_the_engine(family, tmp_path):
    # GPT-2 keeps its linears transposed, as Conv1D: its table is what can be quantised.
    scheme_of = tables("int8") if family == "gpt2" else all_linears("int4-g16")
    written = write_rounded(family, tmp_path / "out", scheme_of)

    model = load_model(written.path)

    assert (model.fused is not None) == (family in FUSED_FAMILIES)
    assert set(written.schemes) <= set(model.quantised_linears)
    torch.testing.assert_close(engine_logits(model), transformers_logits(written.model, family), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["w8a8-dynamic", "w8a8-static", "w8a8-static-asym"])
@pytest.mark.parametrize("decoder", ["fused", "hf"])
def test_rounded_inputs_reach_both_decoders(kind, decoder, tmp_path):
    written = write_rounded("llava", tmp_path / "out", all_linears(kind))
    model = load_model(written.path, decoder=decoder)
    expected, found = transformers_logits(written.model, "llava"), engine_logits(model)
    # A value between two codes may go either way; the unrounded model is ten times further off.
    assert (found - expected).norm() / expected.norm() < 2e-2
    if decoder == "fused":
        assert all(
            isinstance(linear, RoundedPackedLinear)
            for layer in model.fused.layers
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )


@pytest.mark.parametrize(
    "kind", ["int4", "int3", "int8", "fp8", "w8a8", "mixed", "table", "int4-asym", "nf4", "nf4-dq"]
)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm", "internvl"])
def test_transformers_alone_reads_the_same_numbers(family, kind, tmp_path):
    format_name, scheme_of = SCHEMES[kind]
    pytest.importorskip("bitsandbytes" if format_name == "bnb-nf4" else "compressed_tensors")
    written = write_rounded(family, tmp_path / "out", scheme_of, format_name)
    ours = load_checkpoint(written.path)
    assert unreadable_reason(written.path, ours) is None
    dequantise = needs_dequantising(written.path)

    with quietly():
        plain = load_plain(written.path, ours.family, dequantise=dequantise)
        rounded = transformers_logits(plain, family)
        switch_off_rounding(plain)
        found = transformers_logits(plain, family)

    for module in ours.model.modules():
        if hasattr(module, "input_rounding"):
            module.input_rounding = torch.nn.Identity()
    expected = transformers_logits(ours.model, family)
    difference = (found - expected).norm() / expected.norm()
    assert difference < (1e-2 if dequantise else 1e-5)  # compressed-tensors does that in float16
    assert torch.equal(rounded, found) == (kind not in ("w8a8", "mixed"))


def test_transformers_still_cannot_load_asymmetric_weights_without_dequantising(tmp_path):
    """If this fails, transformers has learnt it, and the exports need no warning any more."""
    pytest.importorskip("compressed_tensors")
    written = write_rounded("llava", tmp_path / "out", all_linears("int4-g16-asym"))
    with quietly(), pytest.raises(ModelLoadError, match="transformers cannot load it"):
        load_plain(written.path, load_checkpoint(written.path).family, dequantise=False)


def test_asymmetric_weights_among_others_are_for_our_loader_only(tmp_path):
    pytest.importorskip("compressed_tensors")
    mixed = lambda name, module: all_linears("int4-g16-asym" if "mlp" in name else "int8")(name, module)  # noqa: E731
    written = write_rounded("llama", tmp_path / "out", mixed)
    assert "every linear has the same scheme" in str(unreadable_reason(written.path, load_checkpoint(written.path)))


def test_a_fresh_process_confirms_a_good_checkpoint_and_rejects_others(tmp_path):
    written = write_rounded("llava", tmp_path / "out", by_component)
    probe = ReloadProbe.of(written.model, transformers_inputs("llava", prompt_of("llava")))

    report = verify_reload(written.path, probe)

    assert report.foveal < reload_check.ROUNDED
    assert report.transformers_skipped is None or "not installed" in report.transformers_skipped
    assert report.transformers is None or report.transformers < reload_check.EXACT


@pytest.mark.parametrize("fault", ["logits", "nan", "truncated"])
def test_a_checkpoint_that_does_not_answer_the_same_is_rejected(fault, tmp_path):
    written = write_rounded("llava", tmp_path / "out", all_linears("int4-g16"), "gptq")
    probe = ReloadProbe.of(written.model, transformers_inputs("llava", prompt_of("llava")))
    message = "logits differ from those of the model that was written by"
    if fault == "logits":
        probe = ReloadProbe(probe.inputs, probe.logits + 0.1)
    elif fault == "nan":
        probe, message = ReloadProbe(probe.inputs, probe.logits * float("nan")), "differ"
    else:
        path, message = written.path / "model.safetensors", "damaged"
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match=message):
        reload_check.check(written.path, probe)


def test_a_probe_comes_back_from_disk_as_it_was(tmp_path):
    probe = ReloadProbe(
        {"input_ids": torch.arange(4)[None], "pixel_values": torch.rand(1, 3, 2, 2)}, torch.rand(1, 4, 5)
    )
    probe.save(tmp_path / "probe.safetensors")
    again = ReloadProbe.load(tmp_path / "probe.safetensors")
    assert torch.equal(again.logits, probe.logits)
    assert all(torch.equal(again.inputs[name], tensor) for name, tensor in probe.inputs.items())


def test_generation_settings_come_along(tmp_path):
    written = write_rounded("llava", tmp_path / "out", all_linears("int8"))
    transformers.GenerationConfig(eos_token_id=[7, 8]).save_pretrained(written.path)
    assert load_model(written.path).spec.eos_token_ids[:2] == (7, 8)
