"""config_groups of compressed-tensors become schemes; what cannot be run is refused with its name."""

from __future__ import annotations

import pytest

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.scheme import parse_linear
from foveal.models.quantised.config_groups import find_group, parse_groups


def config(*, targets=("Linear",), format="pack-quantized", inputs=None, outputs=None, **weights):  # noqa: A002
    group = {"targets": list(targets), "weights": weights, "input_activations": inputs, "output_activations": outputs}
    return {"format": format, "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("weights", "inputs", "scheme"),
    [
        ({"num_bits": 4, "strategy": "group", "group_size": 128}, None, "int4-g128"),
        ({"num_bits": 4, "group_size": 32, "symmetric": False}, None, "int4-g32-asym"),
        ({"num_bits": 8, "strategy": "channel"}, None, "int8"),
        ({"num_bits": 8, "group_size": -1}, None, "int8"),
        ({"num_bits": 8}, None, "int8-tensor"),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, None, "fp8"),
        ({"num_bits": 8, "strategy": "channel"}, {"strategy": "token", "dynamic": True}, "w8a8-dynamic"),
        ({"num_bits": 8, "strategy": "channel"}, {"symmetric": False}, "w8a8-static-asym"),
    ],
)
def test_arguments_become_a_scheme(weights, inputs, scheme):
    (group,) = parse_groups(config(inputs=inputs, **weights))
    assert group.scheme == parse_linear(scheme)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"config_groups": {"W4A16": ["Linear"]}}, "preset"),
        ({"config_groups": {}}, "names no config_groups"),
        (config(format="nvfp4-pack-quantized", num_bits=4), "stored as nvfp4-pack-quantized"),
        (config(strategy="block", block_structure=[128, 128], num_bits=8), "per block"),
        (config(inputs={"type": "float", "num_bits": 8, "strategy": "token", "dynamic": True}), "float8 per token"),
        (config(inputs={"strategy": "tensor", "dynamic": True}), "per tensor"),
        (config(outputs={"num_bits": 8}), "rounds outputs"),
    ],
)
def test_what_cannot_be_run_is_refused(values, message):
    with pytest.raises(ModelLoadError, match=message):
        parse_groups(values)


def test_names_come_before_expressions_and_those_before_classes():
    groups = parse_groups(
        {
            "format": "pack-quantized",
            "config_groups": {
                "class": {"targets": ["Linear"], "weights": {"num_bits": 8}},
                "expression": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 4}},
                "name": {"targets": ["model.mlp.up"], "weights": {"num_bits": 3}},
            },
        }
    )
    assert find_group(groups, ("model.mlp.up", "mlp.up"), "Linear").name == "name"
    assert find_group(groups, ("model.mlp.down", "mlp.down"), "Linear").name == "expression"
    assert find_group(groups, ("model.attn", "attn"), "Linear").name == "class"
    with pytest.raises(ModelLoadError, match="no config group targets it"):
        find_group(groups, ("model.embed", "embed"), "Embedding")


def test_the_name_in_the_files_counts_too():
    groups = parse_groups(config(targets=["language_model.lm_head"], num_bits=8))
    assert find_group(groups, ("lm_head", "language_model.lm_head"), "Linear").name == "group_0"
