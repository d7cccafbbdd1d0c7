"""Methods that need no data: RTN, NF4, FP8."""

from __future__ import annotations

import pytest
import torch

from foveal.compression.methods.fp8 import fp8
from foveal.compression.methods.nf4 import nf4
from foveal.compression.methods.rtn import rtn
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import WeightScheme

WEIGHT = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))


def error(quantised):
    return float((quantised.dequantise() - WEIGHT).pow(2).mean())


def test_rtn_is_the_nearest_code_everywhere():
    scheme = WeightScheme(group_size=32)
    found = rtn(WEIGHT, scheme)
    inside = (found.codes > -8) & (found.codes < 7)
    step = found.scale.repeat_interleave(32, 1)
    assert ((found.dequantise() - WEIGHT).abs()[inside] <= step[inside] / 2 + 1e-7).all()


def test_rtn_with_the_mse_observer_loses_no_more_than_with_the_full_range():
    scheme = WeightScheme(bits=3)
    assert error(rtn(WEIGHT, scheme, observer="mse")) < error(rtn(WEIGHT, scheme))


def test_nf4_beats_a_uniform_grid_of_the_same_bits_on_gaussian_weights():
    scheme = WeightScheme("nf4", group_size=64)
    assert torch.equal(nf4(WEIGHT, scheme).codes, quantise(WEIGHT, scheme).codes)
    assert error(nf4(WEIGHT, scheme)) < error(rtn(WEIGHT, WeightScheme(group_size=64, symmetric=False)))


def test_fp8_keeps_small_weights_beside_an_outlier():
    weight = WEIGHT.clone()
    weight[:, 0] = 1000
    found = fp8(weight, WeightScheme("float", 8)).dequantise()
    integer = rtn(weight, WeightScheme(bits=8)).dequantise()
    assert (found - weight)[:, 1:].abs().mean() < (integer - weight)[:, 1:].abs().mean() / 10


@pytest.mark.parametrize("method", [nf4, fp8])
def test_a_scheme_of_another_kind_is_refused(method):
    with pytest.raises(ConfigurationError, match="was asked for scheme int4"):
        method(WEIGHT, WeightScheme())
