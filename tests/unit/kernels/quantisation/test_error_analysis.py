"""Measured signal-to-noise ratios against theory, with the quantiser that weights go through."""

from __future__ import annotations

import math

import pytest
import torch

from foveal.kernels.quantisation import integer_grid
from foveal.kernels.quantisation.affine import QuantisedWeight, find_scales, quantise
from foveal.kernels.quantisation.error_analysis import (
    LayerError,
    clipping_power,
    layer_error,
    mse,
    sqnr_db,
    theory_gaussian_db,
    theory_mse,
    theory_sine_db,
    theory_uniform_db,
    worst_layers,
)
from foveal.kernels.quantisation.scheme import parse_weight

BITS = [4, 5, 6, 7, 8]
SAMPLES = 400_000


def _measured_db(signal: torch.Tensor, bits: int, full_scale: float) -> float:
    """SQNR on a grid of 2^b whole cells over [-full_scale, full_scale].

    A grid that has a code for zero puts its cells half a step off centre, so the signal is shifted by that half step:
    only then are all 2^b cells, the two outer ones included, whole, which is what 6.02 dB per bit counts.
    """
    step = 2 * full_scale / 2**bits
    scale, zero_point = torch.tensor(step, dtype=signal.dtype), torch.tensor(2 ** (bits - 1))
    codes = integer_grid.encode(signal - step / 2, scale, zero_point, (0, 2**bits - 1))
    return sqnr_db(signal, integer_grid.decode(codes, scale, zero_point) + step / 2)


def _uniform() -> torch.Tensor:
    return torch.rand(SAMPLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("bits", BITS)
def test_a_full_scale_uniform_signal_measures_6_02_db_per_bit(bits):
    assert _measured_db(_uniform(), bits, 1.0) == pytest.approx(theory_uniform_db(bits), abs=0.2)
    assert theory_uniform_db(bits) == pytest.approx(6.02 * bits, abs=0.01)


def _sine(amplitude: float) -> torch.Tensor:
    return amplitude * torch.sin(torch.arange(SAMPLES // 10, dtype=torch.float64) * math.sqrt(2))


@pytest.mark.parametrize("bits", [7, 8])
def test_a_full_scale_sine_measures_1_76_db_more(bits):
    assert _measured_db(_sine(1.0), bits, 1.0) == pytest.approx(theory_sine_db(bits), abs=0.2)
    assert theory_sine_db(bits) == pytest.approx(6.02 * bits + 1.76, abs=0.01)


@pytest.mark.parametrize("bits", BITS)
def test_a_sine_whose_peak_is_anywhere_in_the_outermost_cell_measures_1_76_db_more(bits):
    """With few bits the peak's place in its cell matters (half a dB at 4 bits); the formula is the mean over it."""
    noise = 0.0
    for place in (torch.arange(16) + 0.5).div(16).tolist():
        amplitude = 1 - place * 2 / 2**bits
        noise += 10 ** (-(_measured_db(_sine(amplitude), bits, 1.0) - 20 * math.log10(amplitude)) / 10) / 16
    assert -10 * math.log10(noise) == pytest.approx(theory_sine_db(bits), abs=0.2)


def test_a_sine_that_peaks_at_the_edge_of_a_cell_is_half_a_db_short_at_four_bits():
    assert _measured_db(_sine(1.0), 4, 1.0) - theory_sine_db(4) == pytest.approx(-0.53, abs=0.05)
    assert _measured_db(_sine(1.0), 8, 1.0) - theory_sine_db(8) == pytest.approx(-0.14, abs=0.05)


@pytest.mark.parametrize(("bits", "k_sigma"), [(4, 4.0), (5, 4.0), (6, 4.0), (7, 4.5), (8, 5.0)])
def test_a_gaussian_measures_as_expected_where_clipping_is_rare(bits, k_sigma):
    signal = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert _measured_db(signal, bits, k_sigma) == pytest.approx(theory_gaussian_db(bits, k_sigma), abs=0.2)
    expected = 6.02 * bits + 4.77 - 20 * math.log10(k_sigma)
    assert theory_gaussian_db(bits, k_sigma) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("bits", [6, 7, 8])
@pytest.mark.parametrize("k_sigma", [2.0, 3.0, 4.0])
def test_where_values_are_clipped_the_clipped_power_closes_the_gap(bits, k_sigma):
    # Evenly spaced quantiles: tails of the right weight, which samples would take millions to have.
    signal = torch.special.ndtri((torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES)
    granular = k_sigma**2 / (3 * 4**bits)
    with_clipping = -10 * math.log10(granular + clipping_power(k_sigma, bits))
    assert _measured_db(signal, bits, k_sigma) == pytest.approx(with_clipping, abs=0.2)


def test_the_plain_gaussian_formula_breaks_when_the_range_is_too_short():
    signal = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert _measured_db(signal, 8, 2.0) < theory_gaussian_db(8, 2.0) - 10


@pytest.mark.parametrize("bits", BITS)
def test_end_codes_at_the_ends_of_the_range_cost_one_of_2_to_the_b_cells(bits):
    """A min-max asymmetric weight has 2^b - 1 whole cells: 0.56 dB below 6.02 b at 4 bits, 0.03 dB at 8."""
    weight = _uniform().float()[None]
    measured = sqnr_db(weight, quantise(weight, parse_weight(f"int{bits}-asym")).dequantise())
    assert measured == pytest.approx(20 * math.log10(2**bits - 1), abs=0.1)


def test_error_power_is_a_twelfth_of_the_squared_step():
    weight = _uniform().float()[None]
    quantised = quantise(weight, parse_weight("int8"))
    assert mse(weight, quantised.dequantise()) == pytest.approx(theory_mse(quantised.scale.item()), rel=0.02)


@pytest.mark.parametrize("name", ["int4-g64", "int4-g64-asym", "int8", "int8-tensor", "fp8", "fp8-tensor", "nf4-g64"])
def test_a_rounded_layer_measures_what_its_cells_predict(name):
    # NF4's cells are wide where weights are few, and not evenly filled; every block's largest weight is exact.
    tolerance_db = 0.8 if name.startswith("nf4") else 0.2
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(4)) * 0.03
    error = layer_error("layers.0.q_proj", weight, quantise(weight, parse_weight(name)))
    assert abs(error.excess_db) < tolerance_db
    assert error.sqnr_db == pytest.approx(10 * math.log10(weight.double().square().mean().item() / error.mse))


def test_a_layer_that_was_clipped_shows_an_excess():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(5))
    scheme = parse_weight("int8")
    scale, _ = find_scales(weight, scheme)
    assert layer_error("clipped", weight, quantise(weight, scheme, scale / 3)).excess_db > 10


def test_a_layer_without_error_is_infinitely_good_and_one_of_zeros_does_not_fail():
    scheme = parse_weight("int8")
    exact = QuantisedWeight(torch.ones(2, 4, dtype=torch.int8), torch.ones(2, 1), None, scheme)
    assert layer_error("exact", torch.ones(2, 4), exact).sqnr_db == math.inf
    assert layer_error("zeros", torch.zeros(2, 4), quantise(torch.zeros(2, 4), scheme)).mse == 0


def test_the_worst_layers_come_first():
    errors = [LayerError(f"layer{index}", 0.1, 0.1, sqnr) for index, sqnr in enumerate([30.0, 10.0, math.inf, 20.0])]
    assert [error.name for error in worst_layers(errors, 3)] == ["layer1", "layer3", "layer0"]
