"""GPTQ against optimal brain quantisation written out column by column in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.compression.methods.gptq import gptq, inverse_factor
from foveal.compression.methods.rtn import rtn
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import find_scales
from foveal.kernels.quantisation.scheme import WeightScheme


def textbook(weight, hessian, scheme, damping, act_order):
    """Round one column, then move the remaining ones by the inverse Hessian of what remains. No Cholesky, no blocks."""
    weight, hessian = weight.double().clone(), hessian.double().clone()
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    columns = weight.shape[1]
    order = (
        torch.argsort(hessian.diagonal(), descending=True, stable=True).tolist() if act_order else list(range(columns))
    )
    group = scheme.group or columns
    scale, zero = find_scales(weight.float(), scheme)
    low, high = scheme.code_range
    codes = torch.zeros(weight.shape)
    for done, column in enumerate(order):
        if not act_order and scheme.group and column % group == 0:
            now, now_zero = find_scales(weight[:, column : column + group].float(), replace(scheme, group_size=None))
            scale[:, column // group] = now[:, 0]
            if zero is not None:
                zero[:, column // group] = now_zero[:, 0]
        at = column // group if scheme.group else 0
        offset = 0 if zero is None else zero[:, at].double()
        code = (torch.round(weight[:, column] / scale[:, at].double()) + offset).clamp(low, high)
        codes[:, column] = code
        error = weight[:, column] - (code - offset) * scale[:, at].double()
        rest = order[done:]
        inverse = torch.linalg.inv(hessian[rest][:, rest])
        weight[:, rest] -= error[:, None] * inverse[0] / inverse[0, 0]
    return codes, scale, zero


def inputs_of(seed, columns, rows=200):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator) @ mixing


def hessian_of(inputs, dtype=torch.float64):
    return 2 / len(inputs) * inputs.to(dtype).T @ inputs.to(dtype)


@given(
    seed=st.integers(0, 10_000),
    group=st.sampled_from([None, 8, 16, 32]),
    symmetric=st.booleans(),
    act_order=st.booleans(),
    block=st.sampled_from([5, 12, 32, 128]),
    bits=st.sampled_from([3, 4, 8]),
)
@settings(max_examples=25, deadline=None)
def test_codes_equal_textbook_obq_for_any_grouping_order_and_block(seed, group, symmetric, act_order, block, bits):
    scheme = WeightScheme(bits=bits, symmetric=symmetric, group_size=group)
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(seed))
    hessian = hessian_of(inputs_of(seed + 1, 32))

    found = gptq(weight, hessian, scheme, act_order=act_order, block=block)
    codes, scale, zero = textbook(weight, hessian, scheme, 0.01, act_order)

    assert torch.equal(found.codes.float(), codes)
    assert torch.equal(found.scale, scale)
    assert (found.zero_point is None) == symmetric
    if zero is not None:
        assert torch.equal(found.zero_point, zero)


def test_float32_gives_the_same_output_error_as_float64():
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    inputs = inputs_of(1, 64, 2000)
    scheme = WeightScheme(group_size=32)

    losses = []
    for dtype in (torch.float32, torch.float64):
        error = gptq(weight, hessian_of(inputs, dtype), scheme).dequantise() - weight
        losses.append(float((inputs @ error.T).pow(2).mean()))

    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("act_order", [False, True])
def test_output_error_is_far_below_rounding_where_inputs_are_correlated(act_order):
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(3))
    inputs = inputs_of(4, 64, 1000)
    scheme = WeightScheme(group_size=32)

    def loss(quantised):
        return float((inputs @ (quantised.dequantise() - weight).T).pow(2).mean())

    assert loss(gptq(weight, hessian_of(inputs), scheme, act_order=act_order)) < 0.6 * loss(rtn(weight, scheme))


def test_compensation_with_the_hessian_itself_would_be_worse_than_rounding():
    # The mistake found in print: the factor must be that of the inverse.
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(5))
    inputs = inputs_of(6, 32, 1000)
    scheme = WeightScheme()
    hessian = hessian_of(inputs)
    right = gptq(weight, hessian, scheme)
    wrong = gptq(weight, torch.linalg.inv(hessian + 0.01 * hessian.diagonal().mean() * torch.eye(32)), scheme)

    def loss(quantised):
        return float((inputs @ (quantised.dequantise() - weight).T).pow(2).mean())

    assert loss(right) < loss(rtn(weight, scheme)) < loss(wrong)


def test_silent_inputs_are_rounded_and_disturb_nothing():
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(7))
    inputs = inputs_of(8, 16)
    inputs[:, [3, 9]] = 0
    scheme = WeightScheme()

    found = gptq(weight, hessian_of(inputs), scheme)

    assert torch.equal(found.codes[:, [3, 9]], rtn(weight, scheme).codes[:, [3, 9]])


def test_a_hessian_of_few_samples_is_damped_until_it_can_be_inverted():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(9))
    inputs = inputs_of(10, 64, 3)

    found = gptq(weight, hessian_of(inputs, torch.float32), WeightScheme(), damping=1e-12)

    assert torch.isfinite(found.dequantise()).all()
    assert torch.isfinite(inverse_factor(torch.zeros(4, 4), 0.01)).all()


def test_a_hessian_with_nan_is_refused():
    with pytest.raises(ConfigurationError, match="NaN"):
        gptq(torch.ones(2, 4), torch.full((4, 4), torch.nan), WeightScheme())


def test_the_weight_and_the_hessian_are_left_as_they_were():
    weight, hessian = torch.randn(4, 8), hessian_of(inputs_of(0, 8))
    copies = weight.clone(), hessian.clone()
    gptq(weight, hessian, WeightScheme(), act_order=True)
    assert torch.equal(weight, copies[0])
    assert torch.equal(hessian, copies[1])


@pytest.mark.parametrize("scheme", [WeightScheme("nf4", group_size=8), WeightScheme("float", 8)])
def test_schemes_that_are_not_integers_are_refused(scheme):
    with pytest.raises(ConfigurationError, match="rounds to integers"):
        gptq(torch.ones(2, 8), torch.eye(8), scheme)


def test_per_tensor_scale_is_shared_by_all_rows():
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(11))
    scheme = WeightScheme(bits=8, group_size=-1)
    found = gptq(weight, hessian_of(inputs_of(12, 16)), scheme)
    assert found.scale.shape == (1, 1)
    assert (found.dequantise() - weight).abs().max() < 0.3
