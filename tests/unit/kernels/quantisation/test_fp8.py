"""FP8 E4M3 and the 16-bit formats against values that are enumerated from their definition."""

from __future__ import annotations

import math

import pytest
import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation import fp8
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.number_formats import FORMATS, round_to
from foveal.kernels.quantisation.scheme import parse_weight


def _e4m3_values() -> torch.Tensor:
    """All finite magnitudes: 4 exponent bits with bias 7, 3 mantissa bits, the last pattern is NaN."""
    values = [mantissa / 8 * 2.0**-6 for mantissa in range(8)]
    values += [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for mantissa in range(8)]
    return torch.tensor(values[:-1], dtype=torch.float64)


def test_the_largest_value_is_448():
    assert _e4m3_values().max() == fp8.E4M3_MAX


@pytest.mark.parametrize("name", ["fp8", "fp8-tensor", "fp8-g64"])
def test_every_weight_gets_the_nearest_value(name):
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(0)) * 0.1
    quantised = quantise(weight, parse_weight(name))
    magnitudes = _e4m3_values()
    values = torch.cat([-magnitudes.flip(0), magnitudes])
    step = quantised.scale.expand(6, -1).repeat_interleave(128 // quantised.scale.shape[1], dim=1)
    nearest = (values * step.double()[..., None] - weight.double()[..., None]).abs().min(dim=-1).values
    torch.testing.assert_close((quantised.dequantise().double() - weight).abs(), nearest, rtol=0, atol=1e-7)


def test_values_beyond_the_range_saturate_and_do_not_become_nan():
    codes = fp8.encode(torch.tensor([1e6, -1e6, 460.0]), torch.tensor(1.0))
    assert codes.float().tolist() == [448.0, -448.0, 448.0]


def test_expected_error_is_that_of_values_spread_over_the_cell():
    """Integrated numerically, for every positive value but the largest."""
    values = _e4m3_values()
    edges = (values[:-1] + values[1:]) / 2
    lower = torch.cat([-edges[:1], edges[:-1]])  # the cell of zero reaches as far below it
    positions = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    inside = lower[:, None] + (edges - lower)[:, None] * positions
    expected = (inside - values[:-1, None]).square().mean(dim=1)
    measured = fp8.cell_mse(values[:-1].float().to(torch.float8_e4m3fn)).double()
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", list(FORMATS))
def test_formats_describe_the_types_of_torch(name):
    entry, info = FORMATS[name], torch.finfo(FORMATS[name].dtype)
    assert 1 + entry.exponent_bits + entry.mantissa_bits == entry.bits == info.bits
    assert (entry.epsilon, entry.largest, entry.smallest_normal) == (info.eps, info.max, info.smallest_normal)


@pytest.mark.parametrize("name", list(FORMATS))
def test_rounding_is_off_by_half_an_epsilon_at_most_and_saturates(name):
    entry = FORMATS[name]
    values = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-4, 4)
    values = values[values.abs() > entry.smallest_normal]
    assert ((round_to(values, name) - values).abs() <= values.abs() * entry.epsilon / 2).all()
    assert round_to(torch.tensor([math.inf], dtype=torch.float64), name).item() == entry.largest


def test_a_format_that_needs_scales_is_refused():
    with pytest.raises(ConfigurationError, match="not a floating-point format"):
        round_to(torch.zeros(1), "int8")
