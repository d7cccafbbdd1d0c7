"""Ranges from min-max, sigma, percentile and search against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import find_scales, quantise
from foveal.kernels.quantisation.observers import value_range
from foveal.kernels.quantisation.scheme import parse_weight


@pytest.fixture
def weight():
    values = torch.randn(16, 128, generator=torch.Generator().manual_seed(3))
    values[:, ::40] *= 6  # a few outliers, as real weights have
    return values


def test_sigma_is_mean_and_k_standard_deviations_within_the_extremes(weight):
    exact = weight.double().numpy()
    low, high = value_range(weight, "sigma", k_sigma=2.0)
    mean, spread = exact.mean(axis=1, keepdims=True), 2 * exact.std(axis=1, keepdims=True)
    np.testing.assert_allclose(low, np.maximum(exact.min(axis=1, keepdims=True), mean - spread), rtol=1e-5)
    np.testing.assert_allclose(high, np.minimum(exact.max(axis=1, keepdims=True), mean + spread), rtol=1e-5)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_percentile_is_numpys_with_linear_interpolation(weight, percentile):
    exact = weight.double().numpy()
    low, high = value_range(weight, "percentile", percentile=percentile)
    np.testing.assert_allclose(low, np.percentile(exact, 100 - percentile, axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(high, np.percentile(exact, percentile, axis=1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("name", ["int3-g32", "int4-g64", "int4-g64-asym", "int8-tensor", "fp8", "nf4-g64"])
def test_search_never_loses_to_the_full_range(weight, name):
    scheme = parse_weight(name)
    searched = quantise(weight, scheme, *find_scales(weight, scheme, "mse"))
    full = quantise(weight, scheme)
    group = weight.shape[1] if scheme.group is None else scheme.group
    before, after = (
        (each.dequantise().double() - weight.double()).square().reshape(-1, group).sum(dim=1)
        for each in (full, searched)
    )
    if scheme.per_tensor:
        before, after = before.sum(), after.sum()
    assert (after <= before * (1 + 1e-6)).all()
    assert after.sum() < before.sum()


def test_search_finds_the_best_of_its_grid(weight):
    """The oracle tries every shrink factor for every group, one after the other."""
    scheme = parse_weight("int4-g64")
    scale, _ = find_scales(weight, scheme, "mse", smallest_shrink=0.5, shrink_steps=11)
    full, _ = find_scales(weight, scheme)
    for row in range(weight.shape[0]):
        for group in range(2):
            values = weight[row, 64 * group : 64 * (group + 1)].double().numpy()
            errors = []
            for step in range(11):
                candidate = float(full[row, group]) * (1 - 0.05 * step)
                restored = np.clip(np.rint(values / candidate), -8, 7) * candidate
                errors.append(((restored - values) ** 2).sum())
            chosen = float(scale[row, group])
            restored = np.clip(np.rint(values / chosen), -8, 7) * chosen
            assert ((restored - values) ** 2).sum() <= min(errors) * 1.01


def test_importance_moves_error_to_inputs_that_matter_less(weight):
    importance = torch.where(torch.arange(128) < 64, 100.0, 0.01)
    scheme = parse_weight("int3")
    plain = quantise(weight, scheme, *find_scales(weight, scheme, "mse"))
    weighted = quantise(weight, scheme, *find_scales(weight, scheme, "mse", importance=importance))

    def loss(quantised):
        return ((quantised.dequantise() - weight).square() * importance).sum()

    assert loss(weighted) < loss(plain)


@pytest.mark.parametrize(
    ("observer", "options", "message"),
    [
        ("median", {}, "observer 'median' is not known"),
        ("percentile", {"percentile": 10.0}, "outside"),
        ("sigma", {"k_sigma": 0.0}, "above 0"),
    ],
)
def test_an_impossible_range_is_refused(weight, observer, options, message):
    with pytest.raises(ConfigurationError, match=message):
        value_range(weight, observer, **options)
