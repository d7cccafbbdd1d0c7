"""Static input ranges from calibration."""

from __future__ import annotations

import pytest
import torch

from foveal.compression.input_statistics import InputStatistics
from foveal.compression.methods.activations import calibrate_input
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import ActivationScheme
from foveal.models.quantised.input_rounding import InputRounding


def statistics_of(inputs):
    statistics = InputStatistics(inputs.shape[1], rows_per_batch=len(inputs))
    statistics.add(inputs)
    return statistics


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("observer", ["minmax", "percentile", "sigma", "mse"])
def test_rounding_error_is_at_most_half_a_step_inside_the_range(symmetric, observer):
    inputs = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    scheme = ActivationScheme(dynamic=False, symmetric=symmetric)

    static = calibrate_input(statistics_of(inputs), scheme, observer)

    error = (InputRounding(scheme, static)(inputs) - inputs).abs()
    assert (error <= static.scale / 2 + 1e-6).float().mean() > 0.99
    assert (static.zero_point is None) == symmetric


def test_the_full_range_is_covered_by_minmax_and_cut_by_percentile():
    inputs = torch.randn(5000, 4, generator=torch.Generator().manual_seed(1))
    inputs[0, 0] = 500
    scheme = ActivationScheme(dynamic=False)
    full = calibrate_input(statistics_of(inputs), scheme)
    cut = calibrate_input(statistics_of(inputs), scheme, "percentile")
    assert float(full.scale) == pytest.approx(500 / 127)
    assert float(cut.scale) < 5 / 127


def test_mse_is_never_worse_than_the_full_range():
    inputs = torch.randn(500, 8, generator=torch.Generator().manual_seed(2)) ** 3
    scheme = ActivationScheme(dynamic=False)
    errors = [
        float(
            (InputRounding(scheme, calibrate_input(statistics_of(inputs), scheme, name))(inputs) - inputs).pow(2).mean()
        )
        for name in ("mse", "minmax")
    ]
    assert errors[0] <= errors[1]


def test_a_range_without_inputs_is_refused():
    with pytest.raises(ConfigurationError, match="needs calibration data"):
        calibrate_input(InputStatistics(4), ActivationScheme(dynamic=False))
