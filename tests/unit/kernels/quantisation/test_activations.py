"""Inputs rounded per token or on a calibrated grid, against float64 oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.activations import fake_quantise, quantise_activation
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
