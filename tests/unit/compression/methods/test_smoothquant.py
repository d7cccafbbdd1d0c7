"""SmoothQuant: outliers move from inputs to weights."""

from __future__ import annotations

import torch

from foveal.compression.methods.smoothquant import search_alpha, smooth_scale
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import ActivationScheme, WeightScheme
from foveal.models.quantised.input_rounding import InputRounding


def test_scale_is_the_papers_formula():
    weights = [torch.tensor([[1.0, -4.0]]), torch.tensor([[2.0, 0.5]])]
    scale = smooth_scale(torch.tensor([8.0, 4.0]), weights, 0.5)
    assert torch.allclose(scale, torch.tensor([(8 / 2) ** 0.5, (4 / 4) ** 0.5]))


def test_silent_channels_keep_their_scale():
    scale = smooth_scale(torch.tensor([0.0, 1.0]), [torch.tensor([[1.0, 0.0]])], 0.5)
    assert scale.tolist() == [1, 1]


def test_columns_of_one_channel_count_by_their_largest():
    scale = smooth_scale(
        torch.tensor([1.0, 2.0, 9.0, 4.0]), [torch.ones(1, 4)], 1.0, channels=torch.tensor([0, 1, 0, 1])
    )
    assert scale.tolist() == [9, 4]


def test_w8a8_error_shrinks_where_a_channel_has_outliers():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 32, generator=generator)
    inputs[:, 3] *= 80
    weight = torch.randn(16, 32, generator=generator)
    rounding = InputRounding(ActivationScheme())

    def loss(scale):
        scale = torch.ones(32) if scale is None else scale
        found = rounding(inputs / scale) @ quantise(weight * scale, WeightScheme(bits=8)).dequantise().T
        return float((found - inputs @ weight.T).pow(2).mean())

    alpha, scale = search_alpha(lambda alpha: smooth_scale(inputs.abs().amax(0), [weight], alpha), loss)

    assert alpha is not None
    assert loss(scale) < 0.2 * loss(None)


def test_no_alpha_is_taken_where_none_helps():
    assert search_alpha(lambda alpha: torch.ones(1), lambda scale: 1.0) == (None, None)
