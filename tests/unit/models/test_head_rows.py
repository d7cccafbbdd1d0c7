"""A cut head gives the logits that the whole head gives for the kept tokens."""

from __future__ import annotations

import pytest
import torch

from foveal.kernels.native.extension import native_kernels
from foveal.models.loading import load_model
from support.tiny_models import tiny_checkpoint

IDS = torch.tensor([0, 3, 7, 258, 279])
needs_native = pytest.mark.skipif(native_kernels() is None, reason="the kernels are not compiled")


def hidden_states(width: int) -> torch.Tensor:
    return torch.randn(4, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("quantize", "decoder"),
    [
        ("none", "fused"),
        ("none", "hf"),
        pytest.param("none", "native", marks=needs_native),
        pytest.param("bfloat16", "native", marks=needs_native),
        pytest.param("int8", "native", marks=needs_native),
        pytest.param("int4", "native", marks=needs_native),
    ],
)
def test_logits_of_kept_tokens_are_those_of_the_whole_head(quantize, decoder):
    model = load_model(tiny_checkpoint("llama"), quantize=quantize, decoder=decoder)
    hidden = hidden_states(model.spec.hidden_size)

    cut = model.cut_head(IDS)

    assert cut is not None
    torch.testing.assert_close(cut(hidden), model.compute_logits(hidden)[:, IDS], rtol=1e-5, atol=1e-5)


def test_a_head_with_bias_is_not_cut():
    model = load_model(tiny_checkpoint("llama"), decoder="fused")
    head = model.hf_model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.ones(head.out_features))

    assert model.cut_head(IDS) is None
