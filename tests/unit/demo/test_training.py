"""The training machinery against transformers and against hand-made cases, on tiny random weights."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foveal.demo.training.decoder import Decoder
from foveal.demo.training.dense_targets import TARGET_WORDS, WordBasis, _centre_weights, patch_weights
from foveal.demo.training.export import low_rank_names
from foveal.demo.training.frozen_linear import FrozenLinear
from foveal.demo.training.packing import PromptCodec, Row, all_of_next, collate
from foveal.demo.training.pool import Example
from foveal.evaluation.tasks.catalogue import make_item
from foveal.evaluation.tasks.scene import Question


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


class FakeTokenizer:
    """One token per character; `<image>` and `<|im_end|>` are single tokens."""

    SPECIAL = ("<image>", "<|im_end|>", "<|im_start|>")

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids = []
        while text:
            special = next((s for s in self.SPECIAL if text.startswith(s)), None)
            ids.append(200 + self.SPECIAL.index(special) if special else ord(text[0]))
            text = text[len(special or "x") :]
        return ids

    def convert_tokens_to_ids(self, token: str) -> int:
        return 200 + self.SPECIAL.index(token)


QUESTIONS = (Question("count", "How many?", "3"), Question("color", "Which?", "red"), Question("exists", "Any?", "no"))


def test_the_training_decoder_equals_transformers(llama: LlamaForCausalLM) -> None:
    ids = torch.randint(0, 300, (2, 17))
    decoder = Decoder(llama, rank=4, scale=2.0, int8=False)
    mask = torch.ones(17, 17, dtype=torch.bool).tril()[None, None].expand(2, -1, -1, -1)
    with torch.no_grad():
        found = decoder(decoder.embeddings[ids], torch.arange(17)[None].expand(2, -1), mask)
        expected = llama.model(ids).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_merged_updates_equal_updates_beside_the_weights(llama: LlamaForCausalLM) -> None:
    decoder = Decoder(llama, rank=4, scale=2.0, int8=False)
    for name, parameter in decoder.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.05)
    ids = torch.randint(0, 300, (1, 9))
    mask = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        expected = decoder(decoder.embeddings[ids], torch.arange(9)[None], mask)
        low_rank = low_rank_names(decoder.state_dict(), scale=2.0)
        parameters = dict(llama.model.named_parameters())
        for name, down in low_rank.items():
            if name.endswith("lora_A"):
                parameters[name.replace("lora_A", "weight")] += low_rank[name.replace("lora_A", "lora_B")] @ down
        found = llama.model(ids).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_int8_products_stay_close_in_both_directions() -> None:
    torch.manual_seed(0)
    weight = torch.randn(96, 64)
    exact, quantised = FrozenLinear(weight, False, False), FrozenLinear(weight, True, True)
    x = torch.randn(40, 64) * torch.logspace(-2, 2, 40)[:, None]  # rows of very different size
    gradients = []
    for layer in (exact, quantised):
        given = x.clone().requires_grad_(True)
        out = layer(given)
        out.backward(torch.ones_like(out))
        gradients.append((out.detach(), given.grad))
    for one, other in zip(*gradients, strict=True):
        error = (one - other).norm(dim=-1) / one.norm(dim=-1)
        assert error.max() < 0.03


def test_a_packed_question_gives_the_same_states_as_when_asked_alone(llama: LlamaForCausalLM) -> None:
    codec = PromptCodec(FakeTokenizer())  # type: ignore[arg-type]
    decoder = Decoder(llama, rank=1, scale=1.0, int8=False)

    def answer_states(questions: tuple[Question, ...], text: list[int]) -> dict[str, torch.Tensor]:
        row = Row()
        if text:
            row.add_text(0, text)
        order = row.add_picture(0, questions, codec, 400, random.Random(3))
        batch = collate([row], len(row.ids) + 5, pad=0)
        with torch.no_grad():
            flat = decoder(decoder.embeddings[batch.ids], batch.positions, batch.mask).flatten(0, 1)
        states = iter(flat[batch.answer_offsets])
        return {q.text: torch.stack([next(states) for _ in codec.question(q)[1]]) for q in order}

    together = answer_states(QUESTIONS, text=[5, 6, 7, 8])
    for question in QUESTIONS:
        alone = answer_states((question,), text=[])
        torch.testing.assert_close(together[question.text], alone[question.text], atol=1e-4, rtol=1e-4)


def test_questions_that_do_not_fit_are_left_out() -> None:
    codec = PromptCodec(FakeTokenizer())  # type: ignore[arg-type]
    row = Row()
    taken = row.add_picture(0, QUESTIONS, codec, len(codec.prefix) + 60, random.Random(0))
    assert 0 < len(taken) < len(QUESTIONS)
    assert len(row.ids) <= len(codec.prefix) + 60


def test_hits_are_consumed_even_after_the_first_miss() -> None:
    hits = iter([False, True, True])
    assert not all_of_next(hits, 2)
    assert all_of_next(hits, 1)


def test_a_centre_is_shared_between_patches_and_sums_to_one() -> None:
    for x, y in ((0.5, 0.5), (0.03, 0.97), (0.4375, 0.4375)):
        weights = _centre_weights(x, y)
        assert weights.sum() == pytest.approx(1.0)
    assert _centre_weights(0.4375, 0.4375).reshape(8, 8)[3, 3] == pytest.approx(1.0)


def test_dense_targets_name_the_colour_most_where_the_thing_is() -> None:
    basis = WordBasis({word: i for i, word in enumerate(TARGET_WORDS)}, torch.eye(len(TARGET_WORDS)))
    item = make_item("shapes", "train", 4)
    weights, importance = patch_weights(Example("shapes", item.picture, (), item.scene.things), basis)
    assert weights.shape == (64, len(TARGET_WORDS))
    thing = item.scene.things[0]
    patch = int(thing.y * 8) * 8 + int(thing.x * 8)
    assert weights[patch, basis.index[thing.colour]] > 0.3
    assert importance[patch] > importance.min()
    assert np.isclose(weights[:, basis.index["object"]].sum(), len(item.scene.things), atol=0.02)
