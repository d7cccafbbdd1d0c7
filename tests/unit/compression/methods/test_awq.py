"""AWQ: the scale search, and the clip search that follows it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.compression.methods.awq import search_scale
from foveal.compression.methods.clipping import clip, search_clip
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import WeightScheme


def data(seed, columns=32, outlier=1.0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(300, columns, generator=generator)
    inputs[:, 0] *= outlier
    weights = [torch.randn(8, columns, generator=generator), torch.randn(4, columns, generator=generator)]
    return inputs, weights


def output_loss(inputs, weight, quantised, scale):
    """As a model would run it: inputs divided, weights multiplied."""
    return float(((inputs / scale) @ quantised.dequantise().T - inputs @ weight.T).pow(2).sum())


def hessian_of(inputs):
    return 2 / len(inputs) * inputs.T @ inputs


@given(
    seed=st.integers(0, 10_000),
    outlier=st.sampled_from([0.0, 1.0, 30.0]),
    group=st.sampled_from([None, 16]),
    symmetric=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_the_scale_found_is_never_worse_than_gamma_zero(seed, outlier, group, symmetric):
    inputs, weights = data(seed, outlier=outlier)
    scheme = WeightScheme(symmetric=symmetric, group_size=group)

    found = search_scale(weights, [scheme, scheme], hessian_of(inputs), inputs.abs().mean(0), steps=6)

    plain = sum(output_loss(inputs, w, quantise(w, scheme), torch.ones(32)) for w in weights)
    scaled = sum(output_loss(inputs, w, quantise(w * found.scale, scheme), found.scale) for w in weights)
    assert scaled <= plain * 1.0001
    assert found.loss <= found.plain_loss
    assert (found.scale > 0).all()


def test_channels_with_large_inputs_get_larger_weights():
    inputs, weights = data(0, outlier=40.0)
    scheme = WeightScheme(group_size=16)
    found = search_scale(weights, [scheme, scheme], hessian_of(inputs), inputs.abs().mean(0))
    assert found.gamma > 0
    assert found.scale.argmax() == 0
    assert found.loss < 0.8 * found.plain_loss


def test_columns_fed_by_one_channel_share_its_scale():
    inputs, weights = data(1, outlier=40.0)
    channels = torch.arange(32) % 16
    scheme = WeightScheme()
    found = search_scale(
        weights, [scheme, scheme], hessian_of(inputs), inputs.abs().mean(0), channels=channels, steps=4
    )
    assert found.scale.shape == (16,)


def test_clipping_is_never_worse_and_helps_where_one_weight_sticks_out():
    inputs, (weight, _) = data(2)
    weight[:, 5] = 8.0
    inputs[:, 5] *= 0.01
    scheme = WeightScheme(group_size=16)
    hessian = hessian_of(inputs)

    clipped = search_clip(weight, scheme, hessian)

    ones = torch.ones(32)
    assert output_loss(inputs, weight, clipped, ones) < 0.9 * output_loss(
        inputs, weight, quantise(weight, scheme), ones
    )


@given(seed=st.integers(0, 10_000), symmetric=st.booleans(), bits=st.sampled_from([3, 4, 8]))
@settings(max_examples=20, deadline=None)
def test_clipping_never_raises_the_output_error(seed, symmetric, bits):
    inputs, (weight, _) = data(seed)
    scheme = WeightScheme(bits=bits, symmetric=symmetric, group_size=16)
    ones = torch.ones(32)
    plain = output_loss(inputs, weight, quantise(weight, scheme), ones)
    assert output_loss(inputs, weight, search_clip(weight, scheme, hessian_of(inputs)), ones) <= plain * 1.0001


def test_clip_keeps_zero_inside_every_range():
    weight = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    assert clip(weight, 4, torch.full((1, 1), 0.5)).tolist() == [[1, 2, 4, 4]]
