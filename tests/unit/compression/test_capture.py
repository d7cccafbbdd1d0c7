"""Walking a model block by block gives what the model itself gives."""

from __future__ import annotations

import pytest
import torch

from foveal.compression.calibration import CalibrationSample, CalibrationSet
from foveal.compression.calibration_inputs import prepare_samples
from foveal.compression.capture import Block, BlockRun, collect_statistics
from foveal.compression.input_statistics import InputStatistics
from foveal.compression.model_walk import ModelWalk
from foveal.compression.prefill import make_batches
from foveal.models.loading import load_model
from support.tiny_models import FAMILIES, TEXT_FAMILIES, VISION_FAMILIES, tiny_checkpoint, tiny_processor


def walk_of(family, pairs=5):
    samples = CalibrationSet.from_rendered_tasks(pairs).samples
    if family in TEXT_FAMILIES:
        samples = [CalibrationSample(None, one.question, one.answer) for one in samples]
    prepared = prepare_samples(samples, tiny_processor(family))
    batches = make_batches(prepared[:-2], False, max_tokens=200) + make_batches(prepared[-2:], True)
    return ModelWalk(load_model(tiny_checkpoint(family), decoder="hf"), batches)


def pass_through(blocks, runs):
    for position, block in enumerate(blocks):
        for run in runs:
            run.hidden = run.call(position, block)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt2"])
@torch.inference_mode()
def test_the_decoder_walked_layer_by_layer_ends_with_the_models_own_hidden_states(family):
    walk = walk_of(family)
    steps = walk.steps()
    runs = walk.capture_decoder(steps)

    pass_through(walk.decoder, runs)

    assert len(walk.decoder) == 3
    assert [run.batch for run in runs] == list(range(len(walk.batches)))
    norm = walk.model.hf_model.get_decoder().norm
    for run, step in zip(runs, steps, strict=True):
        assert torch.allclose(norm(run.hidden)[0], walk.forward(step), atol=1e-5)


@pytest.mark.parametrize("family", VISION_FAMILIES)
@torch.inference_mode()
def test_every_tower_layer_and_projector_is_reached_with_its_own_inputs(family):
    walk = walk_of(family)
    (chain,) = walk.tower
    runs = walk.capture_vision(chain)
    seen = {}
    handle = chain[-1].module.register_forward_hook(lambda m, a, out: seen.setdefault("out", out))
    walk.encode(0)
    handle.remove()

    pass_through(chain, runs)

    out = seen["out"][0] if isinstance(seen["out"], tuple) else seen["out"]
    assert torch.allclose(runs[0].hidden, out, atol=1e-5)
    projectors = [block for block in walk.singles if not block.name.endswith(".head")]  # SigLIP's pools for others
    assert len(projectors) == {"gemma3": 0, "qwen3_vl": 3}.get(family, 1)  # Gemma's is a bare parameter
    assert all(walk.capture_vision([block]) for block in projectors)


def test_answers_and_pictures_are_marked_in_the_prompt():
    (sample,) = prepare_samples([CalibrationSet.from_rendered_tasks(1).samples[0]], tiny_processor("llava"))
    answer = CalibrationSet.from_rendered_tasks(1).samples[0].answer
    tokens = torch.tensor(sample.prompt.token_ids)
    predicted = tokens[1:][torch.from_numpy(sample.answer_mask)[:-1]]
    tokenizer = tiny_processor("llava").tokenizer
    assert tokenizer.decode(predicted, skip_special_tokens=False) == answer + tokenizer.eos_token
    assert sample.image_mask.sum() == 16
    assert not (sample.image_mask & sample.answer_mask).any()


def test_batches_hold_whole_samples_in_order_up_to_the_token_limit():
    samples = prepare_samples(CalibrationSet.from_rendered_tasks(6).samples, tiny_processor("llava"))
    batches = make_batches(samples, False, max_tokens=250)
    assert [sample for batch in batches for sample in batch.samples] == samples
    assert all(
        len(batch.samples) == 1 or sum(sample.num_tokens for sample in batch.samples) <= 250 for batch in batches
    )
    assert len(batches) < len(samples)


class TwoReaders(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Linear(4, 4) for _ in range(3))
        self.unused = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.c(self.a(x) + self.b(x))


@torch.inference_mode()
def test_linears_with_one_input_share_statistics_and_unused_ones_are_left_out():
    block = Block("block", TwoReaders())
    runs = [BlockRun(index, torch.randn(1, 5, 4)) for index in range(3)]
    for run in runs:
        run.add_plain_call()
    found = collect_statistics(
        block, 0, runs, names=["a", "b", "c", "unused"], weights=lambda run: None, held_out=lambda batch: batch == 2
    )
    assert found["a"] is found["b"]
    assert found["c"] is not found["a"]
    assert "unused" not in found
    rows = torch.cat([run.hidden[0] for run in runs[:2]])
    assert torch.allclose(found["a"].hessian, 2 / len(rows) * rows.T @ rows, atol=1e-5)
    held = runs[2].hidden[0]
    assert torch.allclose(found["a"].held_hessian, 2 / len(held) * held.T @ held, atol=1e-5)


def test_weighted_statistics_are_those_of_repeated_tokens():
    rows = torch.randn(6, 3, dtype=torch.float64)
    weights = torch.tensor([1.0, 3, 1, 2, 1, 1])
    weighted, repeated = (InputStatistics(3, dtype=torch.float64) for _ in range(2))
    weighted.add(rows, weights)
    repeated.add(rows.repeat_interleave(weights.long(), 0))
    assert torch.allclose(weighted.hessian, repeated.hessian)
    assert torch.allclose(weighted.mean_abs, repeated.mean_abs)


def test_statistics_of_scaled_inputs_need_no_second_pass():
    rows, scale = torch.randn(20, 3), torch.tensor([0.5, 2.0, 4.0])
    first, second = InputStatistics(3), InputStatistics(3)
    first.add(rows)
    second.add(rows / scale)
    derived = first.scaled(scale)
    for name in ("hessian", "held_hessian", "mean_abs", "abs_max", "minimum", "maximum"):
        assert torch.allclose(getattr(derived, name), getattr(second, name), atol=1e-6), name


def test_mixing_modalities_equals_weighting_their_tokens():
    rows, image = torch.randn(10, 3), torch.tensor([True] * 7 + [False] * 3)
    both, alone_image, alone_text = InputStatistics(3), InputStatistics(3), InputStatistics(3)
    both.add(rows, torch.where(image, 0.25, 1.0))
    alone_image.add(rows, image.float())
    alone_text.add(rows, (~image).float())
    mixed = InputStatistics.mixed(alone_image, alone_text, 0.25)
    assert torch.allclose(mixed.hessian, both.hessian, atol=1e-5)
    assert torch.allclose(mixed.mean_abs, both.mean_abs, atol=1e-6)


def test_float32_sums_match_float64_over_many_tokens():
    rows = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    narrow, wide = InputStatistics(8), InputStatistics(8, dtype=torch.float64)
    for part in rows.split(500):
        narrow.add(part)
        wide.add(part)
    assert torch.allclose(narrow.hessian.double(), wide.hessian, rtol=1e-4, atol=1e-4)
