"""A loaded checkpoint as the evaluation sees it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from foveal.core.errors import ConfigurationError, ModelLoadError
from foveal.evaluation.metrics.perplexity import text_windows
from foveal.evaluation.model import Prompt
from foveal.kernels.native.extension import native_kernels
from foveal.models.run_formats import RunFormats
from foveal.pipeline.prompt_preparation import batches_of_groups, prepare_prompt
from foveal.pipeline.running_cost import measure_running
from foveal.pipeline.transformers_model import TransformersEvaluatedModel
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import tiny_checkpoint, tiny_image, tiny_processor

TEXT = "The sea is wide, and the ship that was lost went far. " * 6


@pytest.fixture(scope="module")
def model() -> TransformersEvaluatedModel:
    return TransformersEvaluatedModel(tiny_checkpoint("llava"))


@pytest.mark.parametrize("family", ["llava", "llama", "gpt2", "qwen2_5_vl", "gemma3"])
def test_log_likelihoods_are_those_of_transformers_own_loss(family: str) -> None:
    model = TransformersEvaluatedModel(tiny_checkpoint(family))
    ids = model.tokenize(TEXT)
    windows = text_windows(len(ids), 48, 20)
    found = model.log_likelihoods(ids, windows)
    reference = tiny_hf_model(family)
    with torch.inference_mode():
        for window, score in zip(windows, found, strict=True):
            logits = reference(input_ids=torch.tensor([ids[window.start : window.end]])).logits[0].double()
            log_p = torch.log_softmax(logits, -1)
            expected = sum(
                log_p[position - 1 - window.start, ids[position]].item()
                for position in range(window.scored, window.end)
            )
            assert score == pytest.approx(expected, rel=1e-4)


def test_responses_are_in_the_order_of_the_prompts_whatever_their_pictures(model: TransformersEvaluatedModel) -> None:
    a, b = tiny_image(1), tiny_image(2)
    prompts = [Prompt("q1", a, "x"), Prompt("q2", b, "y"), Prompt("q3", a, "x"), Prompt("q4", None, "zz")]
    done: list[int] = []
    together = model.respond(prompts, max_tokens=5, logits=True, progress=done.append)
    for prompt, response in zip(prompts, together, strict=True):
        [alone] = model.respond([prompt], max_tokens=5)
        assert response.answer == alone.answer
        assert response.top1 == alone.top1
        assert alone.logits is None
        assert response.logits is not None
        assert response.logits.shape == (len(prompt.reference) + 1, model.facts.vocab_size)
        assert tuple(response.logits.argmax(-1)) == response.top1
    assert sum(done) == 4


def test_the_draft_is_the_reference_and_one_end_of_turn() -> None:
    processor = tiny_processor("llava")
    drafted = prepare_prompt(processor, Prompt("what?", tiny_image(0), "red"), (258,))
    assert list(drafted.draft) == [*processor.tokenizer("red", add_special_tokens=False)["input_ids"], 258]


def test_neighbours_with_one_picture_are_one_group_and_batches_are_bounded() -> None:
    a, b = tiny_image(1), tiny_image(2)
    prompts = [Prompt("", picture) for picture in (a, a, b, b, b, a, None, None)]
    assert list(batches_of_groups(prompts, 4)) == [[[0, 1], [2, 3, 4]], [[5], [6], [7]]]


def test_facts_are_those_of_the_directory(model: TransformersEvaluatedModel) -> None:
    facts = model.facts
    assert facts.size_bytes == sum(path.stat().st_size for path in tiny_checkpoint("llava").glob("*.safetensors"))
    assert facts.supports_images
    assert facts.digest.startswith("sha256:") or len(facts.digest) >= 32


def test_running_cost_is_measured_in_a_process_of_its_own() -> None:
    running = measure_running(tiny_checkpoint("llava"))
    assert running.peak_memory_bytes > 50_000_000
    for value in (running.speed.encode_ms, running.speed.prefill_tok_s, running.speed.decode_tok_s):
        assert value is not None
        assert math.isfinite(value)
        assert value > 0


def test_a_directory_that_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"fresh process.*model_type"):
        measure_running(tmp_path)


@pytest.mark.skipif(native_kernels() is None, reason="the kernels are not compiled")
def test_what_is_measured_is_what_the_options_serve() -> None:
    plain = TransformersEvaluatedModel(tiny_checkpoint("llava"))
    served = TransformersEvaluatedModel(tiny_checkpoint("llava"), RunFormats(quantize="int8", kv_dtype="int8"))
    prompts = [Prompt("what?", tiny_image(0), "red")]

    [reference], [rounded] = (m.respond(prompts, max_tokens=4, logits=True) for m in (plain, served))

    assert plain.facts.run_as == "fused float32, KV float32"
    assert served.facts.run_as.startswith("native int8 (")
    assert served.facts.run_as.endswith("KV int8")
    difference = np.abs(reference.logits - rounded.logits).max()
    assert 0 < difference < 0.2 * np.abs(reference.logits).max()


def test_an_int8_cache_needs_the_native_decoder() -> None:
    with pytest.raises(ConfigurationError, match="only the native decoder reads"):
        TransformersEvaluatedModel(tiny_checkpoint("gpt2"), RunFormats(kv_dtype="int8"))


@pytest.mark.parametrize("wrong", [{"quantize": "int3"}, {"kv_dtype": "int4"}])
def test_unknown_formats_are_refused_before_anything_is_loaded(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="must be one of"):
        RunFormats(**wrong)  # type: ignore[arg-type]
