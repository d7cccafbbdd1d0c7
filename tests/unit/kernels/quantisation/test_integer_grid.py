"""The uniform grid against a float64 oracle that is written out value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError, ModelLoadError
from foveal.kernels.quantisation.affine import find_scales, quantise, round_scale
from foveal.kernels.quantisation.scheme import WeightScheme, parse_weight

NAMES = [
    f"int{bits}{tail}{asymmetric}"
    for bits in (2, 3, 4, 8)
    for tail in ("", "-tensor", "-g32", "-g64", "-g128")
    for asymmetric in ("", "-asym")
]


@st.composite
def weights(draw):
    """Gaussian rows of very different size, some of them with zeros, one-sided or with outliers."""
    rows, columns = draw(st.sampled_from([(1, 128), (3, 256), (8, 128)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    values = torch.randn(rows, columns, generator=generator)
    values *= 10.0 ** torch.randint(-3, 3, (rows, 1), generator=generator)
    shape = draw(st.sampled_from(["plain", "zeros", "one-sided", "outliers"]))
    if shape == "zeros":
        values[torch.rand(rows, columns, generator=generator) < 0.6] = 0
    elif shape == "one-sided":
        values.abs_()
    elif shape == "outliers":
        values[:, ::50] *= 40
    return values


def _oracle(weight: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, scheme: WeightScheme) -> np.ndarray:
    """Nearest representable value of every weight by trying all codes."""
    low, high = scheme.code_range
    codes = np.arange(low, high + 1, dtype=np.float64)
    restored = np.empty(weight.shape, dtype=np.float64)
    rows, columns = weight.shape
    for row in range(rows):
        for column in range(columns):
            group = (0, 0) if scheme.per_tensor else (row, column * scale.shape[1] // columns)
            zero = 0 if zero_point is None else int(zero_point[group])
            values = (codes - zero) * float(scale[group])
            restored[row, column] = values[np.abs(values - float(weight[row, column])).argmin()]
    return restored


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_its_nearest_code(name):
    scheme = parse_weight(name)
    weight = torch.randn(3, 256, generator=torch.Generator().manual_seed(len(name)))
    quantised = quantise(weight, scheme)
    zero_point = None if quantised.zero_point is None else quantised.zero_point.numpy()
    nearest = _oracle(weight.numpy(), quantised.scale.numpy(), zero_point, scheme)
    error = np.abs(quantised.dequantise().numpy() - weight.numpy())
    # A tie may go either way, so errors are compared and not values.
    np.testing.assert_allclose(error, np.abs(nearest - weight.numpy()), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(weights(), st.sampled_from([name for name in NAMES if "asym" not in name]))
def test_symmetric_rounding_is_nowhere_off_by_more_than_half_a_step(weight, name):
    scheme = parse_weight(name)
    quantised = quantise(weight, scheme)
    step = quantised.scale.repeat_interleave(weight.shape[1] // quantised.scale.shape[1], dim=1)
    assert ((quantised.dequantise() - weight).abs() <= step * (0.5 + 1e-4)).all()


@settings(max_examples=50, deadline=None)
@given(weights(), st.sampled_from([name for name in NAMES if "asym" in name]))
def test_asymmetric_rounding_is_off_by_a_step_at_most_and_keeps_zero_exact(weight, name):
    scheme = parse_weight(name)
    quantised = quantise(weight, scheme)
    step = quantised.scale.repeat_interleave(weight.shape[1] // quantised.scale.shape[1], dim=1)
    restored = quantised.dequantise()
    assert ((restored - weight).abs() <= step * (1 + 1e-4)).all()
    assert (restored[weight == 0] == 0).all()


@settings(max_examples=50, deadline=None)
@given(weights(), st.sampled_from(NAMES))
def test_codes_stay_in_the_range_of_the_scheme(weight, name):
    scheme = parse_weight(name)
    quantised = quantise(weight, scheme)
    low, high = scheme.code_range
    assert quantised.codes.min() >= low
    assert quantised.codes.max() <= high
    assert quantised.codes.dtype == (torch.int8 if scheme.symmetric else torch.uint8)


@settings(max_examples=50, deadline=None)
@given(weights(), st.sampled_from(NAMES))
def test_rounding_what_was_already_rounded_changes_nothing(weight, name):
    first = quantise(weight, parse_weight(name))
    again = quantise(first.dequantise(), first.scheme, first.scale, first.zero_point)
    assert torch.equal(first.codes, again.codes)


def test_the_ranges_are_those_of_the_formats():
    assert parse_weight("int8").code_range == (-127, 127)
    assert parse_weight("int4").code_range == (-8, 7)
    assert parse_weight("int8-asym").code_range == (0, 255)


def test_eight_bits_map_the_largest_weight_to_127():
    weight = torch.tensor([[0.5, -2.54, 1.0, 0.0]])
    quantised = quantise(weight, parse_weight("int8"))
    assert quantised.codes[0, 1] == -127
    assert quantised.scale.item() == pytest.approx(2.54 / 127, rel=1e-3)


def test_four_bit_steps_are_the_smallest_without_overload():
    """One step smaller than max(high / 7.5, -low / 8.5) leaves some weight more than half a step from a code."""
    weight = torch.tensor([[3.0, -3.4, 0.1, 0.0]])
    scale, _ = find_scales(weight, parse_weight("int4"))
    assert scale.item() == pytest.approx(max(3.0 / 7.5, 3.4 / 8.5), rel=1e-3)


def test_narrow_grids_lose_less_than_with_the_common_absmax_step():
    weight = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    scheme = parse_weight("int4-g64")
    common = weight.abs().amax(dim=1, keepdim=True) / 7.5
    ours = (quantise(weight, scheme).dequantise() - weight).square().mean()
    theirs = (quantise(weight, scheme, common).dequantise() - weight).square().mean()
    assert ours < 0.93 * theirs


@settings(max_examples=50, deadline=None)
@given(st.floats(6e-8, 6e4), st.sampled_from([torch.float16, torch.bfloat16]))
def test_scales_are_rounded_upwards_to_the_next_value_of_their_type(value, dtype):
    scale = torch.tensor([value])
    rounded = round_scale(scale, dtype)
    assert rounded >= scale
    assert rounded.to(dtype).float() == rounded
    below = torch.nextafter(rounded.to(torch.float64), torch.zeros(1, dtype=torch.float64)).to(scale.dtype)
    spacing = max(2.0 ** (math.floor(math.log2(value)) - (10 if dtype == torch.float16 else 7)), 2.0**-24)
    assert rounded - scale <= spacing
    assert below <= rounded


def test_a_group_of_zeros_has_scale_one_and_stays_zero():
    weight = torch.zeros(2, 64)
    for name in ("int4-g32", "int4-g32-asym", "int8", "fp8", "nf4-g32", "nf4-g32-dq"):
        quantised = quantise(weight, parse_weight(name))
        assert not quantised.dequantise().any(), name
        assert torch.isfinite(quantised.scale).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["int4", "int8-asym", "fp8", "nf4-g32"])
def test_a_weight_that_is_not_finite_is_refused(value, name):
    weight = torch.randn(4, 64)
    weight[1, 3] = value
    with pytest.raises(ModelLoadError, match="NaN or infinity"):
        quantise(weight, parse_weight(name))


def test_floats_have_no_integer_code_range():
    with pytest.raises(ConfigurationError, match="no integer codes"):
        _ = parse_weight("fp8").code_range
