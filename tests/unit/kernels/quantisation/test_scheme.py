"""Scheme names are stable and readable, and bytes are what a file holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.bnb_layout import to_bnb
from foveal.kernels.quantisation.packing import pack_along_input, pack_along_output
from foveal.kernels.quantisation.scheme import (
    ActivationScheme,
    LinearScheme,
    WeightScheme,
    effective_group,
    parse_linear,
    parse_weight,
)

granularities = st.sampled_from([None, -1, 32, 64, 128])
integer_weights = st.builds(WeightScheme, st.just("int"), st.integers(2, 8), st.booleans(), granularities)
weights = st.one_of(
    integer_weights,
    st.builds(WeightScheme, st.just("float"), st.just(8), st.just(True), granularities),
    st.builds(WeightScheme, st.just("nf4"), st.just(4), st.just(True), st.sampled_from([32, 64, 128]), st.booleans()),
)
activations = st.builds(ActivationScheme, st.integers(4, 8), st.booleans(), st.booleans())


@settings(max_examples=50, deadline=None)
@given(st.builds(LinearScheme, weights, st.none() | activations))
def test_every_scheme_is_read_back_from_its_name(scheme):
    assert parse_linear(scheme.name) == scheme


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("int4-g64", LinearScheme(WeightScheme(group_size=64))),
        ("int4-g64-asym", LinearScheme(WeightScheme(symmetric=False, group_size=64))),
        ("int8", LinearScheme(WeightScheme(bits=8))),
        ("w8a8-dynamic", LinearScheme(WeightScheme(bits=8), ActivationScheme())),
        ("nf4-g64-dq", LinearScheme(WeightScheme("nf4", group_size=64, double_quant=True))),
        ("fp8", LinearScheme(WeightScheme("float", bits=8))),
    ],
)
def test_names_do_not_change(name, scheme):
    assert scheme.name == name


@pytest.mark.parametrize(
    "name", ["", "int", "int9", "int4-g0", "nf4", "int4-dq", "fp8-asym", "w8a8", "w8a16-dynamic", "x"]
)
def test_what_is_no_scheme_is_refused_with_a_remedy(name):
    with pytest.raises(ConfigurationError, match=r"Use|Write|Leave"):
        parse_linear(name)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@settings(max_examples=50, deadline=None)
@given(integer_weights, st.integers(1, 40), st.integers(1, 3))
def test_integer_bytes_are_those_of_the_packed_tensors(scheme, rows, blocks):
    weight = torch.randn(rows, 128 * blocks)
    quantised = quantise(weight, scheme)
    scales = quantised.scale.half()
    codes = quantised.codes
    if not (scheme.bits == 8 and scheme.symmetric):
        codes = pack_along_input(codes, scheme.bits)
    zero_points = [] if quantised.zero_point is None else [pack_along_output(quantised.zero_point, scheme.bits)]
    assert scheme.stored_bytes(quantised.shape) == _bytes(codes, scales, *zero_points)


@pytest.mark.parametrize("name", ["nf4-g64", "nf4-g64-dq", "nf4-g128-dq"])
def test_nf4_bytes_are_those_of_the_tensors_that_bitsandbytes_saves(name):
    tensors = to_bnb(quantise(torch.randn(48, 256), parse_weight(name)))
    described = [tensor for suffix, tensor in tensors.items() if not suffix.startswith("quant_state")]
    assert parse_weight(name).stored_bytes((48, 256)) == _bytes(*described)


def test_four_bits_in_groups_of_128_take_an_eighth_of_a_bit_for_scales():
    assert parse_weight("int4-g128").stored_bits_per_weight((4096, 4096)) == 4.125


@pytest.mark.parametrize(
    ("in_features", "wanted", "group"),
    [(4096, 128, 128), (576, 128, 64), (1536, 128, 128), (96, 128, 32), (100, 128, None), (64, 16, 16), (72, 16, None)],
)
def test_groups_fall_back_to_a_divisor_of_the_input(in_features, wanted, group):
    assert effective_group(in_features, wanted) == group


def test_groups_that_do_not_divide_the_input_are_refused():
    with pytest.raises(ConfigurationError, match="groups of 128 do not divide an input of 576"):
        parse_weight("int4-g128").groups_of(576)
