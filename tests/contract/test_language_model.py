"""Every family, on each decoder that fits it, answers token for token what transformers' `generate` answers."""

from __future__ import annotations

import pytest
import torch

from foveal.kernels.native.extension import native_kernels
from support.step_driver import generate
from support.tiny_models import FAMILIES, FUSED_FAMILIES, NATIVE_FAMILIES, NUM_NEW_TOKENS, tiny_cases, tiny_model

CASES = [(family, "hf") for family in FAMILIES] + [(family, "fused") for family in FUSED_FAMILIES]
CASES += [(family, "native") for family in NATIVE_FAMILIES if native_kernels() is not None]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("family", "decoder"), CASES)
@pytest.mark.parametrize("token_budget", [5, 11, 64])
def test_chunked_batched_decoding_equals_generate(family, decoder, token_budget):
    cases = tiny_cases(family)
    model = tiny_model(family, decoder)

    answers = generate(model, [case.prompt for case in cases], num_new_tokens=NUM_NEW_TOKENS, token_budget=token_budget)

    assert answers == [list(case.expected) for case in cases]
