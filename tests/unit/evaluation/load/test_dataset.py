"""Workloads: lengths, prefixes, pictures, priorities, repeatability."""

from __future__ import annotations

import base64
import io
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from foveal.core.errors import ConfigurationError
from foveal.core.priority import Priority
from foveal.evaluation.load.dataset import LoadRequest, Workload, WorkloadConfig, parse_priority_mix
from foveal.evaluation.load.pictures import PictureSource, directory_pictures, random_pictures
from foveal.evaluation.load.words import TokenScale


def texts(request: LoadRequest) -> list[str]:
    return [part["text"] for part in request.content if part["type"] == "text"]


def urls(request: LoadRequest) -> list[str]:
    return [part["image_url"]["url"] for part in request.content if part["type"] == "image_url"]


def picture(url: str) -> Image.Image:
    media, data = url.split(",", 1)
    assert media.startswith("data:image/")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


def test_prompts_have_the_wanted_number_of_tokens_by_the_servers_own_measure() -> None:
    scale = TokenScale.from_probes((4, 4 * 2 + 9), (132, 132 * 2 + 9))
    assert scale == TokenScale(overhead_tokens=9.0, tokens_per_word=2.0)
    request = Workload(WorkloadConfig(input_tokens=100, output_tokens=7), scale).next()
    assert len(texts(request)[0].split()) == 50
    assert request.max_tokens == 7


def test_a_server_that_reports_no_usage_counts_as_one_token_per_word() -> None:
    assert TokenScale.from_probes((4, 0), (132, 0)) == TokenScale(0.0, 1.0)


def test_lengths_spread_within_the_bounds_and_fill_them() -> None:
    workload = Workload(WorkloadConfig(input_tokens=100, output_tokens=50, length_spread=0.2), TokenScale())
    requests = [workload.next() for _ in range(300)]
    words = [len(texts(request)[0].split()) for request in requests]
    outputs = [request.max_tokens for request in requests]
    assert (min(words), max(words)) == (80, 120)
    assert (min(outputs), max(outputs)) == (40, 60)


def test_the_shared_prefix_is_the_same_and_comes_before_the_pictures() -> None:
    config = WorkloadConfig(input_tokens=40, shared_prefix_tokens=30, images_per_request=2)
    workload = Workload(config, TokenScale(), PictureSource(random_pictures(8, 8)))
    first, second = workload.next(), workload.next()
    assert [part["type"] for part in first.content] == ["text", "image_url", "image_url", "text"]
    assert texts(first)[0] == texts(second)[0]
    assert len(texts(first)[0].split()) == 30
    assert texts(first)[1] != texts(second)[1]


def test_the_same_seed_draws_the_same_requests() -> None:
    def draw(seed: int) -> list[LoadRequest]:
        config = WorkloadConfig(length_spread=0.5, images_per_request=1, priority_mix={Priority.P0: 1, Priority.P2: 1})
        workload = Workload(config, TokenScale(), PictureSource(random_pictures(8, 8), 0.5), seed)
        return [workload.next() for _ in range(5)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_random_pictures_have_the_wanted_size_and_differ() -> None:
    source = PictureSource(random_pictures(40, 24))
    rng = random.Random(0)
    sent = [source.next(rng) for _ in range(20)]
    assert len(set(sent)) == 20
    assert picture(sent[0]).size == (40, 24)


def test_the_reused_fraction_of_pictures_was_sent_before() -> None:
    source = PictureSource(random_pictures(8, 8), reuse=0.75)
    rng = random.Random(0)
    sent = [source.next(rng) for _ in range(400)]
    assert len(set(sent)) == pytest.approx(100, abs=25)


def test_pictures_of_a_directory_are_sent_as_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (5, 6), "red").save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    url = directory_pictures(tmp_path)(random.Random(0))
    assert url.startswith("data:image/jpeg;base64,")
    assert base64.b64decode(url.split(",")[1]) == (tmp_path / "a.jpg").read_bytes()


def test_a_directory_without_pictures_is_refused_with_a_remedy(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigurationError, match="--images random"):
            directory_pictures(path)


def test_priorities_follow_their_weights() -> None:
    mix = parse_priority_mix("P0=0.25, p2=0.75")
    assert mix == {Priority.P0: 0.25, Priority.P2: 0.75}
    workload = Workload(WorkloadConfig(input_tokens=1, priority_mix=mix), TokenScale())
    counts = Counter(workload.next().priority for _ in range(1000))
    assert counts[Priority.P0] == pytest.approx(250, abs=50)
    assert counts[Priority.P1] == 0


@pytest.mark.parametrize("text", ["P3=1", "P0", "P0=x", "P0=-1", "P0=0"])
def test_a_priority_mix_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="priority mix"):
        parse_priority_mix(text)


def test_a_prefix_longer_than_the_prompt_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="raise --input-tokens"):
        WorkloadConfig(input_tokens=10, shared_prefix_tokens=11)
