"""Each bug that vision-language engines are known for breaks token-exactness: the contract test would notice it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from foveal.models.base import ModelStep
from foveal.models.language_model import DecoderKind, TransformersModel
from support import step_driver
from support.tiny_models import NUM_NEW_TOKENS, VISION_FAMILIES, tiny_cases, tiny_model

Mutation = Callable[[TransformersModel], None]
CHUNKED, WHOLE = 5, 64
"""Token budgets: prompts in many chunks, images cut; and prompts whole."""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wrong_cases(
    family: str, mutate: Mutation | None = None, *, token_budget: int = WHOLE, decoder: DecoderKind = "auto"
) -> list[int]:
    """Numbers of images in the requests whose answer is no longer that of `generate`."""
    cases = tiny_cases(family)
    model = tiny_model(family, decoder)
    if mutate is not None:
        mutate(model)
    prompts = [case.prompt for case in cases]
    answers = step_driver.generate(model, prompts, num_new_tokens=NUM_NEW_TOKENS, token_budget=token_budget)
    return [len(case.images) for case, answer in zip(cases, answers, strict=True) if tuple(answer) != case.expected]


def plain_positions(model: TransformersModel) -> None:
    model.rope_positions = lambda prompt: (torch.arange(len(prompt.token_ids)).expand(3, -1), 0)


def zero_delta(model: TransformersModel) -> None:
    original = model.rope_positions
    model.rope_positions = lambda prompt: (original(prompt)[0], 0)


def zero_features(model: TransformersModel) -> None:
    original = model.encode_images
    model.encode_images = lambda images: [features * 0 for features in original(images)]


def flipped_images(model: TransformersModel) -> None:
    original = model.encode_images
    model.encode_images = lambda images: original(images)[::-1]


def no_deepstack(model: TransformersModel) -> None:
    original, hidden = model.encode_images, model.spec.hidden_size

    def encode(images):
        return [torch.cat([one[:, :hidden], torch.zeros_like(one[:, hidden:])], -1) for one in original(images)]

    model.encode_images = encode


def causal_images(model: TransformersModel) -> None:
    original = model.forward

    def forward(step: ModelStep, kv_cache):
        return original(replace(step, attention=replace(step.attention, span_ids=None)), kv_cache)

    model.forward = forward


MROPE = [("qwen2_5_vl", "fused"), ("qwen2_5_vl", "hf"), ("qwen3_vl", "fused"), ("qwen3_vl", "hf")]


@pytest.mark.parametrize(("family", "decoder"), MROPE)
def test_image_tokens_have_positions_in_three_dimensions(family, decoder):
    wrong = wrong_cases(family, plain_positions, decoder=decoder)
    assert wrong
    assert 0 not in wrong, "a text-only request has plain positions anyway"


@pytest.mark.parametrize(("family", "decoder"), MROPE)
def test_output_positions_continue_behind_the_images_extent(family, decoder):
    wrong = wrong_cases(family, zero_delta, decoder=decoder)
    assert wrong
    assert 0 not in wrong


@pytest.mark.parametrize("decoder", ["fused", "hf"])
def test_deepstack_features_reach_the_decoder_layers(decoder):
    wrong = wrong_cases("qwen3_vl", no_deepstack, decoder=decoder)
    assert wrong
    assert 0 not in wrong


def test_image_tokens_of_gemma_see_later_ones_of_their_image():
    wrong = wrong_cases("gemma3", causal_images)
    assert wrong
    assert 0 not in wrong


def test_a_chunk_never_ends_inside_an_image_of_gemma(monkeypatch):
    monkeypatch.setattr(step_driver._Sequence, "cut", lambda self, count, atomic: count)
    assert wrong_cases("gemma3", token_budget=CHUNKED)


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_images_keep_their_order(family):
    wrong = wrong_cases(family, flipped_images)
    assert wrong
    assert set(wrong) <= {2, 3}, "one image has no order"


@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_the_answer_depends_on_the_image(family):
    wrong = wrong_cases(family, zero_features)
    assert wrong
    assert 0 not in wrong


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_the_second_chunk_of_an_image_continues_its_features(family, monkeypatch):
    def restarting(self, start, end):
        mask = torch.zeros(end - start, dtype=torch.bool)
        rows = []
        for span in self.prompt.spans:
            low, high = max(start, span.offset), min(end, span.offset + span.length)
            if low < high:
                mask[low - start : high - start] = True
                rows.append(self.features[span.image_index][span.feature_offset :][: high - low])
        return mask, rows

    monkeypatch.setattr(step_driver._Sequence, "image_slice", restarting)
    wrong = wrong_cases(family, token_budget=CHUNKED)
    assert wrong
    assert 0 not in wrong
    assert not wrong_cases(family, token_budget=512), "whole images have no second chunk"


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_the_second_tile_of_an_image_continues_its_features(family, monkeypatch):
    original = step_driver._Sequence.image_slice

    def restarting(self, start, end):
        spans = tuple(replace(span, feature_offset=0) for span in self.prompt.spans)
        return original(replace(self, prompt=replace(self.prompt, spans=spans)), start, end)

    monkeypatch.setattr(step_driver._Sequence, "image_slice", restarting)
    wrong = wrong_cases(family)
    assert wrong
    assert 0 not in wrong
