"""Layouts that others wrote, or that are damaged: read right, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.bnb_layout import to_bnb
from foveal.kernels.quantisation.layouts import to_gptq
from foveal.kernels.quantisation.scheme import parse_linear
from foveal.models.loading import load_checkpoint, load_model
from support.quantised_checkpoints import all_linears, write_rounded
from support.tiny_models import tiny_checkpoint

MODULE = "model.layers.1.mlp.up_proj"


def edited(source: Path, out: Path, change_weights=lambda weights: None, **quantization) -> Path:
    """A copy of a checkpoint with other tensors, and other entries in its quantization_config."""
    shutil.copytree(source, out)
    weights = load_file(out / "model.safetensors")
    change_weights(weights)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"] = config.get("quantization_config", {}) | quantization
    (out / "config.json").write_text(json.dumps(config))
    return out


def replace_weight(**parts: torch.Tensor):
    """Store MODULE as these tensors instead of its weight."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights[f"{MODULE}.weight"]
        weights.update({f"{MODULE}.{name}": tensor for name, tensor in parts.items()})

    return change


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return {
        name: write_rounded("llama", tmp_path_factory.mktemp("written") / name, all_linears(scheme), name).path
        for name, scheme in {
            "compressed-tensors": "int8",
            "gptq": "int4-g16",
            "awq": "int4-g16",
            "bnb-nf4": "nf4-g32",
        }.items()
    }


@pytest.mark.parametrize("strategy", ["channel", "group", "tensor"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("layout", "bits"), [("pack-quantized", 4), ("pack-quantized", 8), ("int-quantized", 8)])
def test_what_compressed_tensors_itself_compressed_is_read(tmp_path, strategy, symmetric, layout, bits):
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    torch.manual_seed(0)
    weight = torch.randn(96, 64)
    arguments = {
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": strategy,
        "group_size": 32 if strategy == "group" else None,
    }
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=quantization.QuantizationArgs(**arguments))
    scales = {"channel": (96, 1), "group": (96, 2), "tensor": (1,)}[strategy]
    state = {"weight": weight, "weight_scale": torch.rand(scales) * 0.02 + 4 / 2**bits}
    if not symmetric:
        state["weight_zero_point"] = torch.randint(-3, 3, scales, dtype=torch.int8)
    compressor = compressors.BaseCompressor.get_value_from_registry(layout)
    compressed = compressor.compress(state, scheme)
    group = {"targets": ["Linear"], "weights": arguments, "format": layout}
    path = edited(
        tiny_checkpoint("llama"),
        tmp_path / "theirs",
        replace_weight(**compressed),
        quant_method="compressed-tensors",
        format=layout,
        config_groups={"group_0": group},
    )

    loaded = load_checkpoint(path)

    expected = compressor.decompress(compressed, scheme)["weight"]
    torch.testing.assert_close(loaded.model.get_submodule(MODULE).weight.data, expected, rtol=0, atol=1e-6)
    assert list(loaded.quantised_linears) == [MODULE]


def test_an_input_order_of_compressed_tensors_is_followed(tmp_path):
    order = torch.randperm(64)
    written = write_rounded("llama", tmp_path / "ours", lambda name, _: "int4-g32-asym" if name == MODULE else None)
    codes = written.quantised[MODULE]

    def reorder(weights):
        weights[f"{MODULE}.weight_g_idx"] = (torch.arange(64) // 32)[order].int()

    loaded = load_checkpoint(edited(written.path, tmp_path / "ordered", reorder)).model
    groups = (torch.arange(64) // 32)[order]
    expected = (codes.codes.float() - codes.zero_point[:, groups]) * codes.scale[:, groups]
    assert torch.equal(loaded.get_submodule(MODULE).weight.data, expected)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("scheme", ["int4-g32", "int4-g32-asym", "int8", "int4-asym"])
@pytest.mark.parametrize("ordered", [False, True])
def test_gptq_of_both_versions_and_any_input_order_is_read(tmp_path, version, scheme, ordered):
    torch.manual_seed(1)
    parsed = parse_linear(scheme)
    weight = quantise(torch.randn(96, 64), parsed.weight)
    parts = to_gptq(weight, version=version)
    groups = parts.g_idx[torch.randperm(64)] if ordered else parts.g_idx
    path = edited(
        tiny_checkpoint("llama"),
        tmp_path / "theirs",
        replace_weight(qweight=parts.qweight, qzeros=parts.qzeros, scales=parts.scales, g_idx=groups),
        quant_method="gptq",
        bits=4,  # another module's: `dynamic` overrides it for this one
        sym=True,
        desc_act=ordered,
        checkpoint_format="gptq" if version == 1 else "gptq_v2",
    )

    loaded = load_checkpoint(path)

    zero = 2 ** (parsed.weight.bits - 1) if weight.zero_point is None else weight.zero_point[:, groups.long()]
    codes = weight.codes.int() + (zero if weight.zero_point is None else 0)
    expected = (codes - zero).float() * weight.scale[:, groups.long()]
    torch.testing.assert_close(loaded.model.get_submodule(MODULE).weight.data, expected, rtol=0, atol=0)
    assert loaded.quantised_linears == {MODULE: parsed}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("compressed-tensors", {"quant_method": "hqq"}, "quantised with hqq; the layouts that are read are awq"),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is marlin"),
        ("awq", {"version": "gemv"}, "gemv"),
        ("bnb-nf4", {"bnb_4bit_quant_type": "fp4"}, "not NF4"),
        ("bnb-nf4", {"load_in_4bit": False, "load_in_8bit": True}, "not NF4"),
        ("gptq", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "no weight is stored that way"),
    ],
)
def test_other_layouts_are_refused_by_name(written, tmp_path, name, changes, message):
    with pytest.raises(ModelLoadError, match=message):
        load_model(edited(written[name], tmp_path / "other", **changes))


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("compressed-tensors", "weight_scale", r"unexpected: .*weight_packed"),
        ("compressed-tensors", "weight_packed", "could not be loaded|missing|has no tensor"),
        ("gptq", "qzeros", r"has no tensor .*qzeros"),
        ("gptq", "qweight", r"unexpected: .*(qzeros|scales|g_idx)"),
        ("awq", "scales", "could not be loaded|has no tensor"),
        ("bnb-nf4", "weight.absmax", "could not be loaded|absmax"),
        ("bnb-nf4", "weight.quant_state.bitsandbytes__nf4", "stored as U8, and what turns it into a weight is missing"),
    ],
)
def test_a_missing_part_is_refused(written, tmp_path, name, part, message):
    path = edited(written[name], tmp_path / "cut", lambda weights: weights.pop(f"{MODULE}.{part}"))
    with pytest.raises(ModelLoadError, match=message):
        load_model(path)


def test_int8_codes_without_scales_are_not_taken_for_weights(tmp_path):
    written = write_rounded("llama", tmp_path / "w8a8", all_linears("w8a8-dynamic")).path
    path = edited(written, tmp_path / "cut", lambda weights: weights.pop(f"{MODULE}.weight_scale"))
    with pytest.raises(ModelLoadError, match=r"up_proj\.weight of .* is stored as I8"):
        load_model(path)


def test_leftover_tensors_are_named(written, tmp_path):
    change = lambda weights: weights.update({f"{MODULE}.weight_global_scale": torch.ones(1)})  # noqa: E731
    with pytest.raises(ModelLoadError, match=r"unexpected: .*weight_global_scale"):
        load_model(edited(written["compressed-tensors"], tmp_path / "more", change))


def test_a_scale_that_is_nan_is_refused(written, tmp_path):
    change = lambda weights: weights[f"{MODULE}.weight_scale"][0].fill_(float("nan"))  # noqa: E731
    with pytest.raises(ModelLoadError, match=r"up_proj\.weight .*NaN or infinity"):
        load_model(edited(written["compressed-tensors"], tmp_path / "nan", change))


@pytest.mark.parametrize(
    ("name", "part"), [("compressed-tensors", "weight_scale"), ("gptq", "qweight"), ("awq", "qweight")]
)
def test_a_part_of_another_size_is_refused(written, tmp_path, name, part):
    def shorten(weights):
        weights[f"{MODULE}.{part}"] = weights[f"{MODULE}.{part}"][:-1].contiguous()

    with pytest.raises(ModelLoadError, match=MODULE):
        load_model(edited(written[name], tmp_path / "short", shorten))


def test_nf4_blocks_that_cross_rows_are_read(written, tmp_path):
    """bitsandbytes counts blocks over the flattened weight, so that widths which 64 does not divide are no exception."""
    expected = {}

    def change(weights: dict[str, torch.Tensor]) -> None:
        before = {name: weights.pop(name) for name in list(weights) if name.startswith(f"{MODULE}.")}
        state_name = f"{MODULE}.weight.quant_state.bitsandbytes__nf4"
        rows, columns = json.loads(bytes(before[state_name].tolist()))["shape"]
        flat = quantise(torch.randn(rows * columns // 128, 128), parse_linear("nf4-g128").weight)
        expected["weight"] = flat.dequantise().reshape(rows, columns)
        for part, tensor in to_bnb(flat).items():
            weights[f"{MODULE}.weight.{part}".removesuffix(".")] = tensor
        state = json.loads(bytes(weights[state_name].tolist())) | {"shape": [rows, columns]}
        weights[state_name] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

    loaded = load_checkpoint(edited(written["bnb-nf4"], tmp_path / "crossing", change), dtype="float32")
    assert expected["weight"].shape[1] < 128
    assert torch.equal(loaded.model.get_submodule(MODULE).weight, expected["weight"])


@pytest.mark.parametrize(("name", "scales"), [("gptq", (0, 4)), ("awq", (0, 4)), ("gptq", ()), ("awq", ())])
def test_scales_of_no_groups_are_refused(written, tmp_path, name, scales):
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[f"{MODULE}.scales"] = torch.zeros(scales, dtype=torch.float16)

    with pytest.raises(ModelLoadError):
        load_checkpoint(edited(written[name], tmp_path / "odd", change))


@pytest.mark.parametrize("name", ["compressed-tensors", "gptq", "awq", "bnb-nf4"])
def test_a_truncated_file_is_reported(written, tmp_path, name):
    path = edited(written[name], tmp_path / "cut") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="damaged"):
        load_model(path.parent)


def test_a_shard_that_is_missing_is_named(tmp_path):
    written = write_rounded("llama", tmp_path / "out", all_linears("int8"), max_shard_bytes=30_000)
    sorted(written.path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(ModelLoadError, match=r"lacks model-00002-of-"):
        load_model(written.path)
