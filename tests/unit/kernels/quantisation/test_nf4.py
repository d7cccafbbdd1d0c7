"""NF4: where its codebook comes from, that codes are the nearest, and what double quantisation costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.kernels.quantisation import nf4
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.double_quantisation import dynamic_map, nest
from foveal.kernels.quantisation.scheme import parse_weight

BITSANDBYTES = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]


def _normal_quantile(probabilities: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(probabilities)).numpy()


def test_the_codebook_is_that_of_bitsandbytes():
    assert nf4.CODEBOOK.tolist() == BITSANDBYTES


def test_the_codebook_follows_from_normal_quantiles():
    """bitsandbytes' create_normal_map: 8 and 7 quantiles between one half and 0.9677083, a zero, over the largest."""
    offset = 0.9677083
    positive = _normal_quantile(np.linspace(offset, 0.5, 9)[:-1])
    negative = -_normal_quantile(np.linspace(offset, 0.5, 8)[:-1])
    derived = np.sort(np.concatenate([positive, [0.0], negative]))
    derived /= derived.max()
    np.testing.assert_allclose(nf4.CODEBOOK.numpy(), derived, atol=2e-7)


def test_the_offset_is_the_mean_of_the_outermost_half_cells():
    """0.9677083 is the mean of 1 - 1/30 and 1 - 1/32: the outermost cells of 15 and of 16 levels."""
    assert np.mean([1 - 1 / 30, 1 - 1 / 32]) == pytest.approx(0.9677083, abs=1e-7)


def test_zero_is_exact_and_the_codebook_is_not_symmetric():
    assert nf4.CODEBOOK[nf4.ZERO_CODE] == 0
    assert (nf4.CODEBOOK + nf4.CODEBOOK.flip(0)).abs().max() > 0.02


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["nf4-g32", "nf4-g64", "nf4-g64-dq"]))
def test_every_weight_gets_the_nearest_value_of_its_block(seed, name):
    weight = torch.randn(4, 128, generator=torch.Generator().manual_seed(seed))
    quantised = quantise(weight, parse_weight(name))
    block = parse_weight(name).group
    values = quantised.scale.double().repeat_interleave(block, dim=1)[..., None] * nf4.CODEBOOK.double()
    nearest = (values - weight.double()[..., None]).abs().min(dim=-1).values
    torch.testing.assert_close((quantised.dequantise().double() - weight.double()).abs(), nearest, rtol=0, atol=1e-6)


def test_blocks_keep_their_largest_value_exactly():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    restored = quantise(weight, parse_weight("nf4-g64")).dequantise()
    largest = weight.abs().argmax(dim=1, keepdim=True)
    assert torch.equal(restored.gather(1, largest).abs(), weight.gather(1, largest).abs())


def test_the_dynamic_map_is_sorted_and_finest_near_zero():
    table = dynamic_map()
    assert table.numel() == table.unique().numel() == 256
    assert torch.equal(table, table.sort().values)
    assert (table[0].item(), table[-1].item()) == (pytest.approx(-0.9929688), 1.0)
    assert 0.0 in table
    assert table.abs()[table != 0].min().item() == pytest.approx(0.55e-6)


def test_nested_scales_are_off_by_little_and_choose_the_nearest_of_the_map():
    scales = torch.rand(48, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    nested = nest(scales)
    flat = (scales - scales.mean()).double().reshape(-1, 256)
    absmax = flat.abs().amax(dim=1, keepdim=True)
    nearest = (flat[..., None] / absmax[..., None] - dynamic_map().double()).abs().min(dim=-1).values * absmax
    torch.testing.assert_close((nested.decode() - scales).abs().double(), nearest.reshape(48, 16), rtol=0, atol=1e-6)
    assert (nested.decode() - scales).abs().max() < 0.005


@pytest.mark.parametrize("groups", [1, 255, 256, 257, 700])
def test_scales_nest_in_any_number(groups):
    scales = torch.rand(1, groups, generator=torch.Generator().manual_seed(groups)) + 0.1
    nested = nest(scales)
    assert nested.absmax.numel() == -(-groups // 256)
    torch.testing.assert_close(nested.decode(), scales, atol=0.01, rtol=0)


def test_equal_scales_nest_without_error():
    scales = torch.full((4, 100), 0.37)
    torch.testing.assert_close(nest(scales).decode(), scales)


def test_double_quantisation_saves_bytes_and_costs_hardly_any_accuracy():
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(1)) * 0.04
    plain, nested = (quantise(weight, parse_weight(name)) for name in ("nf4-g64", "nf4-g64-dq"))

    def loss(quantised):
        return (quantised.dequantise() - weight).square().mean()

    assert nested.stored_bytes < 0.94 * plain.stored_bytes
    assert loss(nested) < 1.005 * loss(plain)


def test_codes_chosen_after_nesting_lose_no_more_than_codes_chosen_before():
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(2))
    ours = quantise(weight, parse_weight("nf4-g64-dq"))
    theirs = quantise(weight, parse_weight("nf4-g64"))
    restored = nf4.decode(theirs.codes.reshape(64, 8, 64), ours.scale[..., None]).reshape(weight.shape)
    assert (ours.dequantise() - weight).square().mean() <= (restored - weight).square().mean()
