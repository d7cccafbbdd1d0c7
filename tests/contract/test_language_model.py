"""Every family, on both decoders, answers token for token what transformers' `generate` answers."""

from __future__ import annotations

import pytest
import torch

from support.step_driver import generate
from support.tiny_models import FAMILIES, FUSED_FAMILIES, NUM_NEW_TOKENS, tiny_cases, tiny_model

CASES = [(family, decoder) for family in FAMILIES for decoder in ("fused", "hf")]
CASES = [(family, decoder) for family, decoder in CASES if decoder == "hf" or family in FUSED_FAMILIES]


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
