"""Verified decoding gives what transformers' `generate` and one plain forward pass give, prompt by prompt."""

from __future__ import annotations

import pytest
import torch

from foveal.pipeline.verified_decoding import DraftedPrompt, VerifiedDecoder
from support.tiny_models import VISION_FAMILIES, TinyCase, tiny_cases, tiny_image, tiny_model, tiny_processor

TOKENS = 8


def expected(case: TinyCase, eos: tuple[int, ...]) -> list[int]:
    tokens = []
    for token in case.expected[:TOKENS]:
        if token in eos:
            break
        tokens.append(token)
    return tokens


@pytest.mark.parametrize("family", [*VISION_FAMILIES, "llama", "gpt2"])
@pytest.mark.parametrize("draft", ["right", "wrong from the third token", "wrong at once"])
def test_answers_are_those_of_generate_whatever_the_draft(family: str, draft: str) -> None:
    model = tiny_model(family)
    decoder = VerifiedDecoder(model)
    groups = []
    for case in tiny_cases(family):
        tokens = list(case.expected[:5])
        if draft == "wrong from the third token":
            tokens = [*tokens[:2], (tokens[2] + 1) % 250, 7]
        elif draft == "wrong at once":
            tokens = [(tokens[0] + 1) % 250]
        groups.append([DraftedPrompt(case.prompt, tuple(tokens))])
    found = decoder.complete(groups, max_tokens=TOKENS)
    assert [g[0].token_ids for g in found] == [expected(c, model.spec.eos_token_ids) for c in tiny_cases(family)]


@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_prompts_that_share_a_picture_answer_as_if_asked_alone(family: str) -> None:
    processor = tiny_processor(family)
    model = tiny_model(family)
    groups = []
    for picture in range(2):
        group = []
        for question in ("what?", "where is it, and why?", "what is that?"):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": content}])
            group.append(DraftedPrompt(processor.prepare(text, [tiny_image(picture)]), (11, 12, 13)))
        groups.append(group)
    together = VerifiedDecoder(model).complete(groups, max_tokens=TOKENS, keep_logits=True)
    for group, completions in zip(groups, together, strict=True):
        for drafted, completion in zip(group, completions, strict=True):
            [[alone]] = VerifiedDecoder(model).complete([[drafted]], max_tokens=TOKENS, keep_logits=True)
            assert completion.token_ids == alone.token_ids
            assert completion.top1 == alone.top1
            torch.testing.assert_close(completion.logits, alone.logits, atol=2e-4, rtol=1e-4)


def test_the_picture_is_encoded_and_the_beginning_computed_once_per_group() -> None:
    processor = tiny_processor("llava")
    model = tiny_model("llava")
    encoded, computed = [], []
    encode, forward = model.encode_images, model.forward
    model.encode_images = lambda images: encoded.append(len(images)) or encode(images)  # type: ignore[method-assign]
    model.forward = lambda step, pool: computed.append(len(step.token_ids)) or forward(step, pool)  # type: ignore[method-assign]
    content = [{"type": "image"}, {"type": "text", "text": "what is it?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}])
    drafted = DraftedPrompt(processor.prepare(text, [tiny_image(0)]), (5, 6))
    VerifiedDecoder(model).complete([[drafted] * 4], max_tokens=1)
    assert sum(encoded) == 1
    assert computed[0] == len(drafted.prompt.token_ids) - 1 + 4 * 2
