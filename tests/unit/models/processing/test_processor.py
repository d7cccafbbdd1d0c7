"""Prompts and pictures become what transformers' own processors make of them; mismatches are the client's error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from foveal.core.errors import InvalidRequestError
from support.tiny_models import (
    VISION_FAMILIES,
    tiny_cases,
    tiny_image,
    tiny_model,
    tiny_processor,
)

ORACLES = {
    "llava": transformers.LlavaProcessor,
    "llava_next": transformers.LlavaNextProcessor,
    "idefics3": transformers.Idefics3Processor,
    "gemma3": transformers.Gemma3Processor,
}
SIZES = [(40, 28), (28, 56), (64, 60), (90, 20), (7, 7)]
GRIDS = {"qwen2_5_vl", "qwen3_vl"}


def placeholder(family: str) -> str:
    """As a raw prompt writes one image."""
    token = tiny_processor(family).placeholder
    return f"<|vision_start|>{token}<|vision_end|>" if family in GRIDS else token


@pytest.mark.parametrize("family", ORACLES)
@pytest.mark.parametrize("size", SIZES)
def test_ids_and_pixels_equal_those_of_transformers_processor(family, size):
    ours = tiny_processor(family)
    settings = ours.vision.settings
    options = {key: value for key, value in settings.items() if key not in ("processor_class", "chat_template")}
    oracle = ORACLES[family](image_processor=ours.vision.image_processor, tokenizer=ours.tokenizer, **options)
    text, image = f"<s>look: {placeholder(family)}\nwhat?", tiny_image(1, size)

    prompt = ours.prepare(text, [image])
    expected = oracle(text=text, images=[image], return_tensors="np", add_special_tokens=False)

    assert prompt.token_ids == list(expected["input_ids"][0])
    pixels = expected["pixel_values"]
    np.testing.assert_array_equal(prompt.images[0].arrays["pixel_values"], pixels if family == "gemma3" else pixels[0])


@pytest.mark.parametrize("family", VISION_FAMILIES)
@pytest.mark.parametrize("size", SIZES)
def test_the_tower_returns_as_many_features_as_the_prompt_has_places(family, size):
    image = tiny_processor(family).prepare(placeholder(family), [tiny_image(2, size)]).images[0]
    features = tiny_model(family).encode_images([image])
    assert features[0].shape == (image.num_tokens, tiny_model(family).spec.feature_width)


@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_images_encoded_together_have_the_features_they_have_alone(family):
    model = tiny_model(family)
    images = [image for case in tiny_cases(family) for image in case.prompt.images]

    together = model.encode_images(images)

    for image, features in zip(images, together, strict=True):
        torch.testing.assert_close(features, model.encode_images([image])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_spans_cover_exactly_the_image_tokens(family):
    prompt = tiny_cases(family)[3].prompt
    image_token = tiny_processor(family).vision.config.image_token_id
    covered = [index for span in prompt.spans for index in range(span.offset, span.offset + span.length)]
    assert covered == [index for index, token in enumerate(prompt.token_ids) if token == image_token]


@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_a_prompt_of_token_ids_expands_like_its_text(family):
    processor, image = tiny_processor(family), tiny_image(3)
    text = f"<s>a {placeholder(family)} b"

    from_text = processor.prepare(text, [image])
    from_ids = processor.prepare(processor.tokenize(text), [image])
    from_expanded = processor.prepare(from_text.token_ids, [image])

    assert from_text.token_ids == from_ids.token_ids == from_expanded.token_ids
    assert from_text.spans == from_ids.spans == from_expanded.spans


@pytest.mark.parametrize("family", VISION_FAMILIES)
@pytest.mark.parametrize(("placeholders", "images"), [(0, 1), (2, 1), (1, 0)])
def test_placeholders_and_images_must_be_as_many(family, placeholders, images):
    with pytest.raises(
        InvalidRequestError, match=f"{placeholders} image placeholders .* and the request {images} images"
    ):
        tiny_processor(family).prepare(
            f"x {placeholder(family)}" * placeholders, [tiny_image(index) for index in range(images)]
        )


@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_image_tokens_typed_into_a_chat_message_are_text(family):
    processor = tiny_processor(family)
    token = processor.vision.token(processor.vision.config.image_token_id)
    typed = f"what is {token} and {processor.placeholder}?"

    prompt = processor.prepare(processor.apply_chat_template([{"role": "user", "content": typed}]))

    assert prompt.images == ()
    assert processor.vision.config.image_token_id not in prompt.token_ids


@pytest.mark.parametrize("family", sorted(GRIDS))
def test_images_side_by_side_are_refused_where_positions_could_not_tell_them_apart(family):
    processor = tiny_processor(family)
    with pytest.raises(InvalidRequestError, match="stand side by side"):
        processor.prepare(processor.placeholder * 2, [tiny_image(0), tiny_image(1)])


@pytest.mark.parametrize("family", ["idefics3", "smolvlm", "internvl"])
def test_low_detail_takes_a_single_view(family):
    image = tiny_image(4, (64, 60))
    high, low = (tiny_processor(family).prepare(placeholder(family), [image], [kind]) for kind in ("high", "low"))
    assert low.images[0].num_tokens == 4
    assert high.images[0].num_tokens > 4


def test_an_image_for_a_text_model_is_refused():
    with pytest.raises(InvalidRequestError, match="reads text only"):
        tiny_processor("llama").prepare("hi", [tiny_image(0)])


def test_an_image_of_an_impossible_shape_is_the_clients_error():
    with pytest.raises(InvalidRequestError, match="does not fit this model"):
        tiny_processor("qwen2_5_vl").prepare(placeholder("qwen2_5_vl"), [tiny_image(0, (900, 2))])


def test_a_leading_special_token_is_not_doubled():
    processor = tiny_processor("llama")
    assert processor.tokenize("<s>a") == processor.tokenizer("<s>a", add_special_tokens=False)["input_ids"]


def test_details_are_one_per_image():
    with pytest.raises(InvalidRequestError, match="1 images and 2 details"):
        tiny_processor("llava").prepare("<image>", [tiny_image(0)], ["low", "low"])
