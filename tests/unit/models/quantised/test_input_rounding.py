"""Inputs are rounded as the scheme says, once for all linears that share them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError, ModelLoadError
from foveal.kernels.quantisation.scheme import ActivationScheme
from foveal.models.linears import DenseLinear
from foveal.models.quantised.input_rounding import InputRounding, StaticInput
from foveal.models.quantised.packed_linears import RoundedPackedLinear, SeparateLinears, adopt_linears
from foveal.models.quantised.rounded_linear import RoundedInputLinear, round_inputs

DYNAMIC = ActivationScheme()


def oracle(x: np.ndarray, scheme: ActivationScheme, scale: float | None, zero: int) -> np.ndarray:
    """In float64, one token after another."""
    low, high = (-127, 127) if scheme.symmetric else (0, 255)
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        step, offset = scale, zero
        if scale is None and scheme.symmetric:
            step, offset = np.abs(row).max() / 127 or 1, 0
        elif scale is None:
            bottom, top = min(row.min(), 0), max(row.max(), 0)
            step = (top - bottom) / 255 or 1
            offset = np.rint(-bottom / step)
        rows.append((np.clip(np.rint(row / step) + offset, low, high) - offset) * step)
    return np.array(rows).reshape(x.shape)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    dynamic=st.booleans(),
    symmetric=st.booleans(),
    shape=st.sampled_from([(5, 8), (2, 3, 8)]),
)
def test_rounding_equals_the_oracle(seed, dynamic, symmetric, shape):
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    scheme = ActivationScheme(8, dynamic, symmetric)
    static = None if dynamic else StaticInput(torch.tensor([0.02]), None if symmetric else torch.tensor([90]))
    found = InputRounding(scheme, static)(torch.from_numpy(x)).numpy()
    expected = oracle(
        x.astype(np.float64), scheme, None if dynamic else float(np.float32(0.02)), 0 if symmetric else 90
    )
    # A value in the middle of two codes may go either way in float32.
    step = np.abs(x).max() / 100 if dynamic else 0.02
    np.testing.assert_allclose(found, expected, atol=1.01 * step)
    assert (np.abs(found - expected) > 1e-4).mean() < 0.02


def test_a_token_is_rounded_the_same_alone_and_in_a_batch():
    x = torch.randn(7, 16)
    rounding = InputRounding(DYNAMIC)
    assert torch.equal(rounding(x)[3:4], rounding(x[3:4]))
    assert rounding(x[:0]).shape == (0, 16)


def test_a_bfloat16_input_stays_bfloat16():
    assert InputRounding(DYNAMIC)(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_range_that_does_not_fit_the_scheme_is_refused():
    with pytest.raises(ConfigurationError, match="no calibrated range"):
        InputRounding(ActivationScheme(dynamic=False))
    with pytest.raises(ConfigurationError, match="a calibrated range is given"):
        InputRounding(DYNAMIC, StaticInput(torch.ones(1)))
    with pytest.raises(ConfigurationError, match="no zero point"):
        InputRounding(ActivationScheme(dynamic=False, symmetric=False), StaticInput(torch.ones(1)))


def rounded(scale: float | None, *, out: int = 4, bias: bool = True) -> RoundedInputLinear:
    static = None if scale is None else StaticInput(torch.tensor([scale]))
    return RoundedInputLinear(
        torch.nn.Linear(8, out, bias=bias).requires_grad_(False),
        InputRounding(ActivationScheme(dynamic=scale is None), static),
    )


@torch.inference_mode()
def expected(modules, x):
    return torch.cat([F.linear(module.input_rounding(x), module.weight, module.bias) for module in modules], -1)


def test_projections_with_one_rounding_share_it():
    modules = [rounded(None), rounded(None, out=2), rounded(None, out=6)]
    calls = []
    packed = adopt_linears(modules)
    packed.rounding, original = (lambda x: calls.append(1) or original(x)), packed.rounding
    x = torch.randn(5, 8)
    torch.testing.assert_close(packed(x), expected(modules, x))
    assert isinstance(packed, RoundedPackedLinear)
    assert (len(calls), packed.in_features, packed.out_features) == (1, 8, 12)


@pytest.mark.parametrize("scales", [(0.1, 0.2), (None, 0.1)])
def test_projections_with_different_roundings_are_computed_apart(scales):
    modules = [rounded(scale) for scale in scales]
    packed, x = adopt_linears(modules), torch.randn(5, 8)
    torch.testing.assert_close(packed(x), expected(modules, x))
    assert isinstance(packed, SeparateLinears)
    assert (packed.in_features, packed.out_features) == (8, 8)


def test_one_rounded_projection_among_plain_ones_leaves_those_alone():
    modules = [torch.nn.Linear(8, 4).requires_grad_(False), rounded(None)]
    x = torch.randn(3, 8)
    wanted = torch.cat([modules[0](x), modules[1](x)], -1)
    torch.testing.assert_close(adopt_linears(modules)(x), wanted)


def test_plain_projections_are_packed_as_before():
    assert isinstance(adopt_linears([torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)]), DenseLinear)


def test_replaced_linears_share_their_parameters():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Sequential(torch.nn.Linear(4, 4))})
    weight = model["b"][0].weight
    round_inputs(model, {"b.0": InputRounding(DYNAMIC)})
    assert isinstance(model["b"][0], RoundedInputLinear)
    assert model["b"][0].weight is weight
    assert sorted(model.state_dict()) == ["a.bias", "a.weight", "b.0.bias", "b.0.weight"]


def test_what_reads_its_weight_without_a_call_is_refused():
    model = torch.nn.MultiheadAttention(4, 1)
    with pytest.raises(ModelLoadError, match="Quantise its weight only"):
        round_inputs(model, {"out_proj": InputRounding(DYNAMIC)})
