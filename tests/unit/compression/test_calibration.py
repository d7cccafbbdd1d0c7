"""Calibration data: where it comes from, its digest, and what is refused."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from foveal.compression.calibration import CalibrationSample, CalibrationSet
from foveal.compression.calibration_fitness import CalibrationUnfitError, is_blank, is_noise, neighbour_correlation
from foveal.core.errors import ConfigurationError
from foveal.evaluation.tasks.catalogue import make_item

RENDERED = CalibrationSet.from_rendered_tasks(32)


def noise(seed, side=64, block=1):
    pixels = np.random.default_rng(seed).integers(0, 256, (side // block, side // block, 3), dtype=np.uint8)
    return Image.fromarray(pixels.repeat(block, 0).repeat(block, 1))


def photograph(seed, side=128):
    """A 1/f picture: the spectrum of natural scenes."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    spectrum = np.fft.fft2(rng.standard_normal((side, side))) / np.maximum(frequency, 1 / side)
    picture = np.fft.ifft2(spectrum).real
    picture = (picture - picture.min()) / np.ptp(picture) * 255
    return Image.fromarray(picture.astype(np.uint8)).convert("RGB")


def set_of(pictures, tasks=("a", "b")):
    samples = [
        CalibrationSample(picture, f"question {number}", "yes", tasks[number % len(tasks)])
        for number, picture in enumerate(pictures)
    ]
    return CalibrationSet(tuple(samples), "test")


def test_rendered_pairs_are_spread_over_kinds_and_tasks():
    tasks = Counter(sample.task for sample in RENDERED.samples)
    assert len(tasks) >= 8
    assert max(tasks.values()) <= 8
    RENDERED.refuse_unfit()


def test_rendered_pairs_come_from_the_training_split_only():
    held_out = {make_item("shapes", "held-out", index).picture().tobytes() for index in range(8)}
    assert not held_out & {sample.picture.tobytes() for sample in RENDERED.samples}


def test_the_same_arguments_give_the_same_digest_and_another_seed_another():
    assert CalibrationSet.from_rendered_tasks(8).digest == CalibrationSet.from_rendered_tasks(8).digest
    assert CalibrationSet.from_rendered_tasks(8, seed=1).digest != CalibrationSet.from_rendered_tasks(8).digest


@pytest.mark.parametrize("change", ["picture", "question", "answer", "order"])
def test_the_digest_follows_the_content(change):
    samples = list(RENDERED.samples[:4])
    first = samples[0]
    if change == "order":
        samples.reverse()
    elif change == "picture":
        samples[0] = CalibrationSample(noise(0), first.question, first.answer, first.task)
    else:
        texts = {"question": first.question, "answer": first.answer} | {change: "other"}
        samples[0] = CalibrationSample(first.picture, task=first.task, **texts)
    assert CalibrationSet(tuple(samples), "x").digest != CalibrationSet(RENDERED.samples[:4], "x").digest


def test_jsonl_is_read_relative_to_its_file_and_has_the_digest_of_its_content(tmp_path):
    lines = []
    for number, sample in enumerate(RENDERED.samples[:20]):
        sample.picture.save(tmp_path / f"{number}.png")
        lines.append(
            {"image": f"{number}.png", "question": sample.question, "answer": sample.answer, "task": sample.task}
        )
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")

    read = CalibrationSet.from_jsonl(file)

    assert read.digest == CalibrationSet(RENDERED.samples[:20], "anything").digest
    assert read.kind == "pairs of pairs.jsonl"
    read.refuse_unfit()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"question": "a"}', "has no answer"),
        ('{"question": " ", "answer": "b"}', "has no question"),
        ('{"question": "a", "answer": "b", "image": "gone.png"}', r"gone\.png cannot be read"),
        ('{"question": "a", "answer": "b", "task": 3}', "task is 3"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\n' + line + "\n")
    with pytest.raises(ConfigurationError, match=f"line 2 of .*{message}"):
        CalibrationSet.from_jsonl(file)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        CalibrationSet.from_jsonl(tmp_path / "nothing.jsonl")


def test_too_few_pairs_are_refused():
    with pytest.raises(CalibrationUnfitError, match="there are 8 calibration pairs; at least 16"):
        CalibrationSet(RENDERED.samples[:8], "x").refuse_unfit()


@pytest.mark.parametrize("block", [1, 4, 8])
def test_noise_is_refused_also_when_enlarged(block):
    with pytest.raises(CalibrationUnfitError, match=r"of 32 calibration pictures are random noise"):
        set_of([noise(seed, side=128, block=block) for seed in range(32)]).refuse_unfit()


def test_noise_resized_to_the_towers_size_is_refused():
    pictures = [noise(seed, side=28).resize((224, 224), Image.Resampling.BILINEAR) for seed in range(16)]
    with pytest.raises(CalibrationUnfitError, match="random noise"):
        set_of(pictures).refuse_unfit()


def test_photographs_drawings_and_text_are_not_noise():
    assert not any(is_noise(photograph(seed)) for seed in range(20))
    assert not any(is_noise(sample.picture) for sample in CalibrationSet.from_rendered_tasks(64).samples)


def test_a_few_odd_pictures_among_good_ones_are_tolerated():
    pictures = [noise(0), *(photograph(seed) for seed in range(19))]
    set_of(pictures).refuse_unfit()


def test_blank_pictures_are_refused():
    pictures = [Image.new("RGB", (32, 32), (value, value, value)) for value in range(0, 250, 10)]
    assert all(map(is_blank, pictures))
    with pytest.raises(CalibrationUnfitError, match="are blank"):
        set_of(pictures).refuse_unfit()


def test_one_picture_for_all_questions_is_refused():
    with pytest.raises(CalibrationUnfitError, match="only 1 different pictures"):
        set_of([photograph(0)] * 20).refuse_unfit()


def test_text_alone_is_refused_for_a_model_that_sees():
    pictures = [photograph(0), photograph(1), *([None] * 18)]
    with pytest.raises(CalibrationUnfitError, match="2 of 20 calibration samples have a picture"):
        set_of(pictures).refuse_unfit()


def test_a_text_model_takes_text_alone_and_no_pictures():
    set_of([None] * 20).refuse_unfit(supports_images=False)
    with pytest.raises(CalibrationUnfitError, match="reads text only"):
        set_of([photograph(0)] * 20).refuse_unfit(supports_images=False)


def test_one_task_is_refused():
    with pytest.raises(CalibrationUnfitError, match=r"all 20 calibration pairs are of one task \(colour\)"):
        set_of([photograph(seed) for seed in range(20)], tasks=("colour",)).refuse_unfit()
    samples = tuple(CalibrationSample(photograph(seed), "What is this?", "a thing") for seed in range(20))
    with pytest.raises(CalibrationUnfitError, match="ask the same question"):
        CalibrationSet(samples, "x").refuse_unfit()


def test_neighbours_correlate_in_pictures_and_not_in_noise():
    rng = np.random.default_rng(0)
    assert abs(neighbour_correlation(rng.standard_normal((64, 64)))) < 0.1
    assert neighbour_correlation(np.add.outer(np.arange(32.0), np.arange(32.0))) > 0.8
    assert neighbour_correlation(np.ones((4, 4))) == 1


def test_samples_to_judge_on_are_spread_and_apart():
    fit, judged = RENDERED.split()
    assert not set(fit) & set(judged)
    assert len(fit) + len(judged) == 32
    assert 4 <= len(judged) <= 8
    assert len({RENDERED.samples[index].task for index in judged}) >= 3
