"""A format says before any work what it cannot hold, why, and what to do."""

from __future__ import annotations

import pytest

from foveal.compression.formats.registry import FORMAT_NAMES, check_expressible
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import parse_linear


def schemes(**names: str):
    return {name.replace("__", "."): parse_linear(scheme) for name, scheme in names.items()}


@pytest.mark.parametrize(
    ("format_name", "scheme"),
    [
        *(
            ("compressed-tensors", scheme)
            for scheme in ("int4-g64", "int4-g64-asym", "int3", "int8", "int8-tensor", "fp8", "w8a8-dynamic")
        ),
        ("compressed-tensors", "w8a8-static-asym"),
        ("gptq", "int4-g128"),
        ("gptq", "int8-asym"),
        ("awq", "int4-g64-asym"),
        ("awq", "int4-g64"),
        ("bnb-nf4", "nf4-g64-dq"),
    ],
)
def test_what_a_format_holds_is_accepted(format_name, scheme):
    check_expressible(schemes(model__a=scheme, model__b=scheme), format_name)


@pytest.mark.parametrize(
    ("format_name", "scheme"),
    [
        ("compressed-tensors", "nf4-g64"),
        ("compressed-tensors", "fp8+a8-dynamic"),
        ("gptq", "w8a8-dynamic"),
        ("gptq", "nf4-g64"),
        ("gptq", "fp8"),
        ("gptq", "int3-g64"),
        ("awq", "int8"),
        ("awq", "w4a8-g64-dynamic"),
        ("bnb-nf4", "int4-g64"),
        ("bnb-nf4", "nf4-g64+a8-dynamic"),
    ],
)
def test_a_refusal_names_module_scheme_format_and_remedy(format_name, scheme):
    with pytest.raises(ConfigurationError) as error:
        check_expressible(schemes(model__tower=scheme), format_name)
    for part in ("model.tower", parse_linear(scheme).name, format_name, "holds"):
        assert part in str(error.value)
    assert "--format" in str(error.value)


@pytest.mark.parametrize("format_name", ["gptq", "awq"])
def test_two_group_sizes_need_compressed_tensors(format_name):
    with pytest.raises(
        ConfigurationError, match=r"mixes int4-g64 \(b\), int4-g32 \(a\)|mixes int4-g32 \(a\), int4-g64 \(b\)"
    ):
        check_expressible(schemes(a="int4-g32", b="int4-g64"), format_name)
    check_expressible(schemes(a="int4-g32", b="int4-g64"))


@pytest.mark.parametrize(("format_name", "shape"), [("awq", (12, 64)), ("gptq", (64, 36)), ("gptq", (12, 64))])
def test_sides_that_fill_no_whole_word_are_refused(format_name, shape):
    with pytest.raises(ConfigurationError, match=f"format {format_name} packs whole words"):
        check_expressible(schemes(a="int4"), format_name, shapes={"a": shape})


@pytest.mark.parametrize(("format_name", "scheme"), [("gptq", "int8"), ("awq", "int4"), ("bnb-nf4", "nf4-g64")])
def test_embedding_tables_need_compressed_tensors(format_name, scheme):
    with pytest.raises(ConfigurationError, match="embedding table"):
        check_expressible(schemes(table=scheme), format_name, embeddings=["table"])
    check_expressible(schemes(table="int8"), embeddings=["table"])


def test_a_table_has_no_input_to_round():
    with pytest.raises(ConfigurationError, match="embedding table"):
        check_expressible(schemes(table="w8a8-dynamic"), embeddings=["table"])


def test_nothing_quantised_and_unknown_formats_are_refused():
    with pytest.raises(ConfigurationError, match="no linear is quantised"):
        check_expressible({})
    with pytest.raises(ConfigurationError, match="Use one of: " + ", ".join(FORMAT_NAMES)):
        check_expressible(schemes(a="int8"), "gguf")
