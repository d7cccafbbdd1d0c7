"""Inputs rounded per token or on a calibrated grid, against float64 oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.activations import fake_quantise, quantise_activation
from foveal.kernels.quantisation.running_observer import RunningObserver
from foveal.kernels.quantisation.scheme import ActivationScheme

DYNAMIC, STATIC = ActivationScheme(), ActivationScheme(dynamic=False)


def _tokens(seed: int, *shape: int) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values * torch.linspace(0.01, 30, shape[-2])[:, None]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_dynamic_rounding_is_that_of_every_token_alone(seed, symmetric):
    values = _tokens(seed, 2, 5, 32)
    rounded = fake_quantise(values, ActivationScheme(symmetric=symmetric))
    for batch in range(2):
        for token in range(5):
            row = values[batch, token].double().numpy()
            if symmetric:
                step = np.abs(row).max() / 127
                expected = np.clip(np.rint(row / step), -127, 127) * step
            else:
                low, high = min(row.min(), 0), max(row.max(), 0)
                step = (high - low) / 255
                zero = np.rint(-low / step)
                expected = (np.clip(np.rint(row / step) + zero, 0, 255) - zero) * step
            off = np.abs(rounded[batch, token].numpy() - expected)
            # A value on a cell's edge may fall on the other side in float32: one step, for hardly any value.
            assert (off > 1e-5 * np.abs(row).max()).mean() < 0.1
            assert off.max() <= step * 1.001


def test_dynamic_scales_do_not_leak_between_tokens():
    values = _tokens(0, 1, 4, 16)
    alone = fake_quantise(values[:, :1], DYNAMIC)
    values[:, 3] *= 1000
    assert torch.equal(fake_quantise(values, DYNAMIC)[:, :1], alone)


def test_rounding_keeps_dtype_and_shape():
    values = _tokens(1, 2, 3, 8).to(torch.bfloat16)
    rounded = fake_quantise(values, DYNAMIC)
    assert (rounded.dtype, rounded.shape) == (values.dtype, values.shape)


def test_integer_products_equal_the_product_of_rounded_values():
    """Scales come out of the sum: codes @ codes, times both scales, is the linear on rounded values."""
    values = _tokens(2, 1, 6, 64)
    quantised = quantise_activation(values, DYNAMIC)
    weight = torch.randint(-127, 128, (10, 64), generator=torch.Generator().manual_seed(0))
    integers = quantised.codes.long() @ weight.T
    expected = quantised.dequantise().double() @ weight.double().T
    torch.testing.assert_close(integers.double() * quantised.scale.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_static_scheme_without_calibration_is_refused():
    with pytest.raises(ConfigurationError, match="calibrated grid, and none was given"):
        fake_quantise(_tokens(0, 1, 2, 4), STATIC)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(0, 1000))
def test_a_running_observer_sees_what_one_look_at_everything_sees(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(size, generator=generator) * 10**index for index, size in enumerate(sizes)]
    everything = torch.cat(batches).double().numpy()
    running = RunningObserver()
    for batch in batches:
        running.observe(batch)
    assert running.count == everything.size
    for symmetric in (True, False):
        scheme = ActivationScheme(dynamic=False, symmetric=symmetric)
        low, high = min(everything.min(), 0), max(everything.max(), 0)
        expected = max(high, -low) / 127 if symmetric else (high - low) / 255
        assert running.scale_and_zero_point(scheme)[0].item() == pytest.approx(expected, rel=1e-5)
    mean, spread = everything.mean(), 1.5 * everything.std()
    low, high = max(everything.min(), mean - spread), min(everything.max(), mean + spread)
    scale, _ = running.scale_and_zero_point(STATIC, "sigma", k_sigma=1.5)
    expected = max(high, -low) / 127
    assert scale.item() == pytest.approx(expected if expected > 2.0**-24 else 2.0**-24 if expected else 1.0, rel=1e-4)


def test_percentile_calibration_leaves_out_the_tail():
    running = RunningObserver()
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    values[:5] = 400.0
    running.observe(values)
    scale, _ = running.scale_and_zero_point(STATIC, "percentile", percentile=99.9)
    exact = np.percentile(values.double().numpy(), 99.9)
    assert exact <= scale.item() * 127 <= exact + 2 * 512 / 8192


@pytest.mark.parametrize("symmetric", [True, False])
def test_search_calibration_beats_the_full_range_on_data_with_outliers(symmetric):
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(1))
    values[:2] = 60.0
    running = RunningObserver()
    for part in values.split(7000):
        running.observe(part)
    scheme = ActivationScheme(dynamic=False, symmetric=symmetric)

    def loss(observer):
        return (fake_quantise(values, scheme, *running.scale_and_zero_point(scheme, observer)) - values).square().mean()

    assert loss("mse") < loss("minmax")


def test_calibration_without_or_with_broken_data_is_refused():
    running = RunningObserver()
    with pytest.raises(ConfigurationError, match="no calibration data"):
        running.scale_and_zero_point(STATIC)
    with pytest.raises(ConfigurationError, match="NaN or infinity"):
        running.observe(torch.tensor([1.0, float("nan")]))
