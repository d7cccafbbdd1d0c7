"""Lloyd-Max against Max's published table, and NF4 against Lloyd-Max."""

from __future__ import annotations

import pytest
import torch

from foveal.kernels.quantisation import nf4
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.lloyd_max import gaussian_codebook, gaussian_mse, sample_codebook
from foveal.kernels.quantisation.scheme import parse_weight

MAX_1960 = {2: 0.3634, 4: 0.1175, 8: 0.03454, 16: 0.009497}


@pytest.fixture(scope="module")
def weight():
    return torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))


def _normalised(weight):
    return weight / weight.abs().amax(dim=1, keepdim=True)


def _loss_in_blocks(weight, codebook):
    """MSE of weight [blocks, n] when every block is divided by its absmax and rounded to a codebook."""
    absmax = weight.abs().amax(dim=1, keepdim=True)
    scaled = (weight / absmax).double()
    index = torch.searchsorted((codebook[:-1] + codebook[1:]) / 2, scaled.contiguous())
    return ((codebook[index] - scaled) * absmax).square().mean().item()


@pytest.mark.parametrize("levels", MAX_1960)
def test_gaussian_error_is_that_of_maxs_table(levels):
    assert gaussian_mse(gaussian_codebook(levels)) == pytest.approx(MAX_1960[levels], rel=1e-3)


def test_closed_form_error_is_the_measured_one():
    codebook = gaussian_codebook(16)
    samples = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rounded = codebook[torch.searchsorted((codebook[:-1] + codebook[1:]) / 2, samples)]
    assert (rounded - samples).square().mean().item() == pytest.approx(gaussian_mse(codebook), rel=0.01)


def test_a_gaussian_codebook_meets_both_conditions():
    codebook = gaussian_codebook(8)
    torch.testing.assert_close(codebook, -codebook.flip(0), atol=1e-9, rtol=0)
    best = gaussian_mse(codebook)
    for index in range(8):
        for shift in (-1e-3, 1e-3):
            moved = codebook.clone()
            moved[index] += shift
            assert gaussian_mse(moved) > best


def test_samples_give_the_codebook_of_their_distribution():
    samples = torch.randn(400_000, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sample_codebook(samples, 8), gaussian_codebook(8), atol=0.04, rtol=0)


def test_nf4_is_within_a_sixth_of_the_least_error_that_16_values_can_reach(weight):
    reference = _loss_in_blocks(weight, sample_codebook(_normalised(weight), 16))
    loss = _loss_in_blocks(weight, nf4.CODEBOOK.double())
    assert reference < loss < reference * 7 / 6


def test_nf4_beats_a_symmetric_uniform_grid_on_gaussian_blocks(weight):
    uniform = (quantise(weight, parse_weight("int4-g64")).dequantise() - weight).square().mean().item()
    assert _loss_in_blocks(weight, nf4.CODEBOOK.double()) < 0.9 * uniform


def test_plain_mid_quantiles_of_the_normal_are_twice_as_bad_as_the_best_uniform_grid():
    """The erratum of the sources: equal probability is not least error. 0.3352 is Max's best step for 16 levels."""
    quantiles = torch.special.ndtri((torch.arange(16, dtype=torch.float64) + 0.5) / 16)
    uniform = (torch.arange(16, dtype=torch.float64) - 7.5) * 0.3352
    assert gaussian_mse(uniform) == pytest.approx(0.01154, rel=1e-3)
    assert gaussian_mse(quantiles) > 2 * gaussian_mse(uniform)
