"""A written checkpoint is complete, changes nothing that it should not, and has the same bytes every time."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveal.compression.formats.writer import write_checkpoint
from foveal.core.errors import ConfigurationError, IntegrityError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import parse_linear
from foveal.models.loading import load_checkpoint, load_model
from foveal.models.quantised.input_rounding import StaticInput
from support.quantised_checkpoints import all_linears, tables, write_rounded
from support.tiny_models import tiny_checkpoint

INT4 = parse_linear("int4-g32")
MODULE = "model.language_model.layers.1.mlp.up_proj"
NORM = "model.language_model.layers.0.input_layernorm.weight"


def weight(name: str = MODULE, family: str = "llava", scheme=INT4):
    module = load_checkpoint(tiny_checkpoint(family)).model.get_submodule(name)
    return quantise(module.weight.detach(), scheme.weight)


@pytest.fixture(scope="module")
def one_weight():
    return weight()


def test_kept_tensors_are_copied_bit_by_bit(tmp_path, one_weight):
    write_checkpoint(tiny_checkpoint("llava"), tmp_path / "out", {MODULE: one_weight}, {MODULE: INT4})

    source = load_file(tiny_checkpoint("llava") / "model.safetensors")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    quantised = "language_model.model.layers.1.mlp.up_proj."
    assert set(source) - set(stored) == {quantised + "weight"}
    assert set(stored) - set(source) == {quantised + part for part in ("weight_packed", "weight_scale", "weight_shape")}
    assert all(torch.equal(stored[name], source[name]) for name in set(source) & set(stored))


def test_processor_tokenizer_and_template_come_along(tmp_path, one_weight):
    write_checkpoint(tiny_checkpoint("llava"), tmp_path / "out", {MODULE: one_weight}, {MODULE: INT4})
    for path in tiny_checkpoint("llava").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_other_files_of_the_source_stay_behind(tmp_path, one_weight):
    source = shutil.copytree(tiny_checkpoint("llava"), tmp_path / "source")
    for name in ("optimizer.pt", "pytorch_model.bin", "passport.json", "README.md"):
        (source / name).write_text("{}")
    write_checkpoint(source, tmp_path / "out", {MODULE: one_weight}, {MODULE: INT4})
    assert not {"optimizer.pt", "pytorch_model.bin", "passport.json", "README.md"} & {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize("limit", [4 * 1024**3, 20_000])
def test_the_same_model_gives_the_same_bytes(tmp_path, limit):
    mixed = lambda name, module: all_linears("int4-g16" if "mlp" in name else "w8a8-dynamic")(name, module)  # noqa: E731
    for run in ("a", "b"):
        write_rounded("qwen2_5_vl", tmp_path / run, mixed, max_shard_bytes=limit)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_sharded_checkpoint_loads(tmp_path):
    written = write_rounded("llama", tmp_path / "out", all_linears("int4-g16"), max_shard_bytes=20_000)
    assert len(list(written.path.glob("model-*.safetensors"))) > 3
    assert load_model(written.path).quantised_linears == written.schemes


def test_what_is_kept_can_be_stored_in_another_type(tmp_path, one_weight):
    out = tmp_path / "out"
    write_checkpoint(
        tiny_checkpoint("llava"), out, {MODULE: one_weight}, {MODULE: INT4}, kept_dtype="float16", format="gptq"
    )
    stored, config = load_file(out / "model.safetensors"), json.loads((out / "config.json").read_text())
    floats = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()}
    assert floats == {torch.float16}
    assert (config["dtype"], config["text_config"]["dtype"]) == ("float16", "float16")


def test_a_value_beyond_the_type_of_kept_tensors_is_refused(tmp_path, one_weight):
    source = shutil.copytree(tiny_checkpoint("llava"), tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    weights["language_model.model.norm.weight"][0] = 1e5
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"norm\.weight reaches 1e\+05; .*--kept-dtype bfloat16"):
        write_checkpoint(source, tmp_path / "out", {MODULE: one_weight}, {MODULE: INT4}, kept_dtype="float16")


def test_a_folded_norm_takes_the_place_of_the_old_one(tmp_path, one_weight):
    folded = torch.linspace(0.5, 2, 64, dtype=torch.float64)
    write_checkpoint(tiny_checkpoint("llava"), tmp_path / "out", {MODULE: one_weight}, {MODULE: INT4}, {NORM: folded})
    loaded = load_checkpoint(tmp_path / "out").model
    assert torch.equal(loaded.get_parameter(NORM), folded.float())


def test_of_a_tied_pair_either_name_will_do(tmp_path):
    scheme = parse_linear("int8")
    for number, name in enumerate(("lm_head", "model.embed_tokens")):
        table = weight("model.embed_tokens", "qwen3", scheme)
        write_checkpoint(tiny_checkpoint("qwen3"), tmp_path / str(number), {name: table}, {name: scheme})
    first, second = (tmp_path / "0" / "model.safetensors"), (tmp_path / "1" / "model.safetensors")
    assert first.read_bytes() == second.read_bytes()
    loaded = load_checkpoint(tmp_path / "0")
    assert sorted(loaded.quantised_linears) == ["lm_head", "model.embed_tokens"]
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight


def test_config_is_written_last_so_that_a_stopped_write_is_taken_up_again(tmp_path, one_weight):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model-00001.safetensors").write_text("half")
    files = write_checkpoint(tiny_checkpoint("llava"), out, {MODULE: one_weight}, {MODULE: INT4})
    assert files[-1].name == "config.json"
    assert not (out / "model-00001.safetensors").exists()
    with pytest.raises(ConfigurationError, match="holds a checkpoint already"):
        write_checkpoint(tiny_checkpoint("llava"), out, {MODULE: one_weight}, {MODULE: INT4})


def test_a_quantised_source_is_refused(tmp_path):
    written = write_rounded("llama", tmp_path / "once", all_linears("int8"))
    with pytest.raises(ConfigurationError, match="is quantised already"):
        write_checkpoint(written.path, tmp_path / "twice", written.quantised, written.schemes)


@pytest.mark.parametrize(
    ("quantised", "schemes", "options", "error", "message"),
    [
        ({}, {MODULE: INT4}, {}, IntegrityError, "weights and schemes differ"),
        ({"model.nothing": "W"}, {"model.nothing": INT4}, {}, ConfigurationError, "absent from the model"),
        (
            {"model.vision_tower.embeddings.patch_embedding": "W"},
            {"model.vision_tower.embeddings.patch_embedding": INT4},
            {},
            ConfigurationError,
            "is a Conv2d; only linears and embeddings",
        ),
        ({"lm_head": "W"}, {"lm_head": INT4}, {}, IntegrityError, r"\(280, 64\)"),
        ({MODULE: "W"}, {MODULE: parse_linear("int8")}, {}, IntegrityError, "to be int8"),
        ({MODULE: "W"}, {MODULE: INT4}, {"replaced": {"model.no": torch.ones(1)}}, IntegrityError, "not in the source"),
        ({MODULE: "W"}, {MODULE: INT4}, {"replaced": {NORM: torch.ones(1)}}, IntegrityError, r"\(64,\); its new"),
        (
            {MODULE: "W"},
            {MODULE: INT4},
            {"replaced": {MODULE + ".weight": torch.ones(96, 64)}},
            IntegrityError,
            "is quantised",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused_before_writing(
    tmp_path, one_weight, quantised, schemes, options, error, message
):
    quantised = dict.fromkeys(quantised, one_weight)
    with pytest.raises(error, match=message):
        write_checkpoint(tiny_checkpoint("llava"), tmp_path / "out", quantised, schemes, **options)
    assert not (tmp_path / "out").exists()


def test_a_static_scheme_needs_its_range(tmp_path):
    scheme = parse_linear("w8a8-static-asym")
    arguments = (tiny_checkpoint("llava"), tmp_path / "out", {MODULE: weight(scheme=scheme)}, {MODULE: scheme})
    with pytest.raises(ConfigurationError, match="no calibrated range"):
        write_checkpoint(*arguments)
    with pytest.raises(ConfigurationError, match="no zero point"):
        write_checkpoint(*arguments, static_inputs={MODULE: StaticInput(torch.ones(1))})


@pytest.mark.parametrize(("scheme", "layout"), [("int4-g32", "gptq"), ("int4-g32-asym", "gptq_v2")])
def test_gptq_keeps_version_1_for_symmetric_weights_and_any_zero_point_in_version_2(tmp_path, scheme, layout):
    linear = parse_linear(scheme)
    positive = quantise(torch.rand(96, 64) + 1, linear.weight)
    source, output = tiny_checkpoint("llava"), tmp_path / "out"
    write_checkpoint(source, output, {MODULE: positive}, {MODULE: linear}, format="gptq")
    assert json.loads((output / "config.json").read_text())["quantization_config"]["checkpoint_format"] == layout
    loaded = load_model(output, dtype="float32", decoder="hf").hf_model.get_submodule(MODULE)
    torch.testing.assert_close(loaded.weight.data, positive.dequantise(), rtol=0, atol=0)


def test_linears_that_stay_are_named_in_every_format(tmp_path):
    kept = {
        "gptq": lambda config: [key.removeprefix("-:") for key in config["dynamic"]],
        "awq": lambda config: config["modules_to_not_convert"],
        "bnb-nf4": lambda config: config["llm_int8_skip_modules"],
        "compressed-tensors": lambda config: config["ignore"],
    }
    schemes = {"gptq": "int4-g16", "awq": "int4-g16-asym", "bnb-nf4": "nf4-g32", "compressed-tensors": "int4-g16"}
    for name, read in kept.items():
        text_only = lambda module_name, module, s=schemes[name]: (  # noqa: E731
            all_linears(s)(module_name, module) if "language_model" in module_name else None
        )
        written = write_rounded("llava", tmp_path / name, text_only, name)
        listed = read(json.loads((written.path / "config.json").read_text())["quantization_config"])
        assert any("lm_head" in entry for entry in listed)
        assert any("vision_tower" in entry and "fc1" in entry for entry in listed)
        if name == "bnb-nf4":
            assert all(entry == "lm_head" or entry.startswith("model.") for entry in listed)


def test_tables_of_8_bits_are_int8_under_their_own_name(tmp_path):
    written = write_rounded("smolvlm", tmp_path / "out", tables("int8"))
    stored = load_file(written.path / "model.safetensors")
    assert stored["model.text_model.embed_tokens.weight"].dtype == torch.int8
