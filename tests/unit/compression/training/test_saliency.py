"""Saliency against exact changes of the loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foveal.compression.training.decoder_stack import find_decoder_stack
from foveal.compression.training.saliency import (
    fisher_diagonal,
    measure_saliency,
    next_token_loss,
    second_order_saliency,
)
from foveal.core.errors import ConfigurationError
from support.counting_llama import counting_batches, tiny_llama


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0, 5)), min_size=1, max_size=8))
def test_saliency_is_the_exact_loss_change_on_a_quadratic(pairs: list[tuple[float, float]]) -> None:
    minimum, curvature = torch.tensor(pairs, dtype=torch.float64).unbind(1)

    def loss(w: torch.Tensor) -> torch.Tensor:
        return 0.5 * (curvature * (w - minimum).square()).sum()

    found = second_order_saliency(minimum, curvature)
    for index in range(len(minimum)):
        without = minimum.clone()
        without[index] = 0
        torch.testing.assert_close(found[index], loss(without) - loss(minimum))


def test_the_fisher_of_a_regression_at_its_optimum_is_its_curvature() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 1, bias=False).double()
    inputs = torch.randn(20, 5, dtype=torch.float64)
    # Residuals of +1 and -1 for every input: the gradient vanishes on average, the noise has unit variance.
    samples = [(x, linear(x).detach() + noise) for x in inputs for noise in (1.0, -1.0)]

    def loss(module: nn.Linear, sample: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return 0.5 * (module(sample[0]) - sample[1]).square().sum()

    found = fisher_diagonal(linear, samples, loss)["weight"][0]
    torch.testing.assert_close(found, inputs.square().mean(0))


@pytest.mark.parametrize("kind", ["diagonal", "joint"])
def test_structures_of_zero_weights_have_no_saliency_and_others_have(kind: str) -> None:
    model = tiny_llama()
    stack = find_decoder_stack(model)
    with torch.no_grad():
        stack.layers[1].mlp.down_proj.weight[:, 7] = 0
        for name in ("gate_proj", "up_proj"):
            getattr(stack.layers[1].mlp, name).weight[7] = 0
        stack.layers[0].self_attn.o_proj.weight[:, :16] = 0  # both heads of the first group
        stack.layers[0].self_attn.v_proj.weight[:8] = 0
    found = measure_saliency(model, stack, counting_batches(4), next_token_loss, kind)  # type: ignore[arg-type]
    assert found.ffn_channels[1, 7] == 0
    assert (found.ffn_channels > 0).sum() == 3 * 48 - 1
    assert found.kv_groups[0, 0] == pytest.approx(0, abs=1e-12)
    assert (found.kv_groups > 1e-9).sum() == 3 * 2 - 1


def test_the_joint_saliency_of_a_channel_is_the_curvature_of_its_mask() -> None:
    """The derivative of the loss by a factor on one channel, squared, is what the weights' gradients add up to."""
    model = tiny_llama().double()
    stack = find_decoder_stack(model)
    (batch,) = counting_batches(1)
    found = measure_saliency(model, stack, [batch], next_token_loss, "joint")
    mask = torch.ones(48, dtype=torch.float64, requires_grad=True)
    handle = stack.layers[2].mlp.down_proj.register_forward_pre_hook(lambda module, args: (args[0] * mask,))
    next_token_loss(model, batch).backward()
    handle.remove()
    torch.testing.assert_close(found.ffn_channels[2], mask.grad.square() / 2)


def test_measuring_leaves_no_gradients_and_no_changed_flags() -> None:
    model = tiny_llama()
    model.lm_head.weight.requires_grad_(False)
    measure_saliency(model, find_decoder_stack(model), counting_batches(1), next_token_loss)
    assert all(p.grad is None for p in model.parameters())
    assert not model.lm_head.weight.requires_grad
    assert model.model.norm.weight.requires_grad


def test_no_samples_is_an_error() -> None:
    model = tiny_llama()
    with pytest.raises(ConfigurationError, match="at least one calibration sample"):
        measure_saliency(model, find_decoder_stack(model), [], next_token_loss)
