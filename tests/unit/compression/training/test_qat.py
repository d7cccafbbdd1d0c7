"""Rounding in training: its gradients, what it hands out, and that it recovers what rounding to nearest loses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveal.compression.training import qat
from foveal.compression.training.fake_quantise import fake_quantise
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import find_scales, quantise
from foveal.kernels.quantisation.scheme import WeightScheme
from support.counting_llama import counting_batches, mean_loss, tiny_llama, trained_llama

SCHEMES = {
    "int4 groups": WeightScheme(bits=4, group_size=8),
    "int4 asymmetric": WeightScheme(bits=4, symmetric=False, group_size=8),
    "int8 channels": WeightScheme(bits=8),
    "int3 tensor": WeightScheme(bits=3, group_size=-1),
}


def linears_of(model: torch.nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@given(seed=st.integers(0, 500))
def test_gradients_are_those_of_learnt_step_size_quantisation(scheme: WeightScheme, seed: int) -> None:
    """Against the paper's formulas in float64, weight by weight."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    scale, zero_point = find_scales(weight.float(), scheme, "minmax")
    scale = (scale.double() * 0.7).half().double()  # some weights lie outside
    w, s = weight.clone().requires_grad_(True), scale.clone().requires_grad_(True)
    upstream = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    (fake_quantise(w, s, zero_point, scheme) * upstream).sum().backward()
    low, high = scheme.code_range
    repeats = 16 // scale.shape[1]
    zero = torch.zeros_like(scale) if zero_point is None else zero_point.double()
    step, zero = (t.repeat_interleave(repeats, 1).expand(3, 16) for t in (scale, zero))
    v = weight / step + zero
    inside = (v >= low) & (v <= high)
    torch.testing.assert_close(w.grad, torch.where(inside, upstream, torch.zeros_like(v)))
    by_scale = torch.where(inside, v.round() - v, v.clamp(low, high) - zero) * upstream
    by_scale = by_scale * (weight.numel() / scale.numel() * high) ** -0.5
    expected = by_scale.sum().view(1, 1) if scale.numel() == 1 else by_scale.view(3, -1, repeats).sum(-1)
    torch.testing.assert_close(s.grad, expected)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_exported_codes_give_exactly_the_weights_of_the_forward_pass(scheme: WeightScheme) -> None:
    model = tiny_llama()
    attached = qat.attach(model, dict.fromkeys(linears_of(model), scheme))
    qat.train(model, counting_batches(3), qat.QatConfig(steps=3, rate=1e-2, scale_rate=1e-2))
    exported = qat.export(model)
    assert set(exported) == set(attached)
    for name, weight in exported.items():
        low, high = scheme.code_range
        assert weight.codes.dtype == (torch.int8 if scheme.symmetric else torch.uint8)
        assert weight.codes.int().min() >= low
        assert weight.codes.int().max() <= high
        assert torch.equal(weight.scale, weight.scale.half().float())
        assert torch.equal(weight.dequantise(), attached[name].rounded_weight().detach())


def test_before_any_step_it_is_rounding_to_nearest() -> None:
    model = tiny_llama()
    scheme = SCHEMES["int4 groups"]
    name = linears_of(model)[0]
    weight = model.get_submodule(name).weight.detach().clone()
    exported = qat.attach(model, {name: scheme}, observer="minmax")[name].export()
    scale, zero_point = find_scales(weight, scheme, "minmax")
    torch.testing.assert_close(exported.dequantise(), quantise(weight, scheme, scale, zero_point).dequantise())


@pytest.mark.parametrize("name", ["int4 groups", "int4 asymmetric", "int3 tensor"])
def test_a_short_training_wins_back_what_rounding_to_nearest_loses(name: str) -> None:
    model = trained_llama()
    held_out = counting_batches(6, seed=7)
    exact = mean_loss(model, held_out)
    scheme = WeightScheme(bits=3, symmetric=SCHEMES[name].symmetric, group_size=SCHEMES[name].group_size)
    qat.attach(model, dict.fromkeys(linears_of(model), scheme))
    nearest = mean_loss(model, held_out)
    qat.train(model, counting_batches(60, seed=8), qat.QatConfig(steps=60, rate=2e-3, scale_rate=2e-3))
    trained = mean_loss(model, held_out)
    assert trained < nearest
    assert trained - exact < 0.5 * (nearest - exact)


def test_afterwards_the_model_is_plain_and_rounded() -> None:
    model = tiny_llama()
    names = linears_of(model)
    qat.attach(model, dict.fromkeys(names, SCHEMES["int4 groups"]))
    (batch,) = counting_batches(1)
    before = mean_loss(model, [batch])
    qat.detach(model)
    assert linears_of(model) == names
    assert mean_loss(model, [batch]) == pytest.approx(before, abs=1e-6)


def test_only_attached_linears_are_trained() -> None:
    model = tiny_llama()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters()}
    name = linears_of(model)[3]
    qat.attach(model, {name: SCHEMES["int8 channels"]})
    qat.train(model, counting_batches(2), qat.QatConfig(steps=2, rate=1e-2))
    changed = {n for n, p in model.named_parameters() if n in frozen and not torch.equal(p, frozen[n])}
    assert changed == {f"{name}.weight"}
    assert all(p.requires_grad for p in model.parameters())


def test_schemes_without_integers_and_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="nf4"):
        qat.attach(tiny_llama(), {"model.layers.0.mlp.up_proj": WeightScheme("nf4", 4, group_size=32)})
    with pytest.raises(ConfigurationError, match=r"model\.layers\.9\.mlp"):
        qat.attach(tiny_llama(), {"model.layers.9.mlp.up_proj": SCHEMES["int8 channels"]})
