"""Guided decoding: what comes out satisfies the schema, whatever the model would have said."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from foveal.core.errors import ConfigurationError, InvalidRequestError
from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.execution.guided import MAX_GRAMMAR_BYTES, Guide, GuideFactory
from foveal.engine.execution.sampler import Sampler, SamplingRow
from foveal.engine.execution.sampling.bitmask import unpack_bitmask

torch.set_num_threads(1)

OBJECT = {
    "type": "object",
    "properties": {"name": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@functools.cache
def tokenizer() -> Tokenizer:
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġthe", "true", '":', '{"', '"}', "cat", "na", "me"]
    built = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens(["<eos>", "<eot>"])
    return built


def eos_ids() -> tuple[int, ...]:
    return (tokenizer().token_to_id("<eos>"), tokenizer().token_to_id("<eot>"))


@functools.cache
def factory() -> GuideFactory:
    return GuideFactory(tokenizer(), eos_ids())


def generate(guide: Guide, seed: int, vocab: int, **kwargs: Any) -> list[int]:
    """Sample from random logits, as an engine would, until eos."""
    sampler = Sampler(vocab)
    generator = torch.Generator().manual_seed(seed)
    output: list[int] = []
    row = SamplingRow(SamplingParams(**kwargs), [1], output, seed, eos_token_ids=eos_ids(), guide=guide)
    while len(output) < 300:
        logits = torch.randn((1, vocab), generator=generator) * 4
        token = sampler.sample(logits, [row])[0][0].token_id
        guide.advance(token)
        if token in eos_ids():
            return output
        output.append(token)
    raise AssertionError(f"no end in sight: {tokenizer().decode(output)!r}")


@pytest.mark.parametrize("padding", [0, 1, 64, 100])
@pytest.mark.parametrize("kwargs", [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.5, "min_tokens": 200}])
def test_random_logits_become_json_that_fits_the_schema(padding: int, kwargs: dict[str, Any]) -> None:
    kwargs = {"max_tokens": None, **kwargs}
    for seed in range(3):
        guide = factory().compile(GuidedDecoding(json_schema=OBJECT))
        output = generate(guide, seed, tokenizer().get_vocab_size() + padding, **kwargs)
        value = json.loads(tokenizer().decode(output))
        assert value["name"] in ("cat", "dog")
        assert 0 <= value["age"] <= 99
        assert guide.is_complete
        assert guide.error is None


def test_a_regex_is_followed() -> None:
    guide = factory().compile(GuidedDecoding(regex="[a-c]{2,3}-[0-9]+"))
    text = tokenizer().decode(generate(guide, 1, tokenizer().get_vocab_size()))
    assert re.fullmatch("[a-c]{2,3}-[0-9]+", text)


def allowed_by(guide: Guide, vocab: int) -> list[int]:
    words = torch.full((1, (vocab + 31) // 32), -1, dtype=torch.int32)
    guide.write_mask(words[0])
    return unpack_bitmask(words, vocab)[0].nonzero()[:, 0].tolist()


def feed(guide: Guide, text: str) -> Guide:
    for token in text:
        guide.advance(tokenizer().token_to_id(token))
    return guide


def test_after_completion_only_eos_is_allowed() -> None:
    guide = feed(factory().compile(GuidedDecoding(regex="ab")), "ab")
    assert guide.is_complete
    for vocab in (tokenizer().get_vocab_size(), 1000):
        assert allowed_by(guide, vocab) == list(eos_ids())
    guide.advance(eos_ids()[1])
    guide.advance(eos_ids()[1])
    assert guide.error is None


def test_an_output_that_may_go_on_is_accepting_but_not_complete() -> None:
    guide = feed(factory().compile(GuidedDecoding(regex="a+")), "a")
    assert guide.is_accepting
    assert not guide.is_complete
    assert set(eos_ids()) < set(allowed_by(guide, 1000))


def test_an_empty_schema_means_any_json_object() -> None:
    guide = factory().compile(GuidedDecoding(json_schema={}))
    shown = {tokenizer().id_to_token(i) for i in allowed_by(guide, tokenizer().get_vocab_size())}
    assert shown == {"{", '{"'}


def test_clones_walk_on_their_own_and_the_cache_stays_at_the_start() -> None:
    guided = GuidedDecoding(regex="ab|ac")
    first = feed(factory().compile(guided), "a")
    second = feed(first.clone(), "b")
    assert second.is_complete
    assert not first.is_complete
    assert feed(first, "c").is_complete
    assert not factory().compile(guided).is_accepting


def test_a_forbidden_token_sets_the_error_and_leaves_eos_only() -> None:
    guide = feed(factory().compile(GuidedDecoding(regex="ab")), "x")
    assert guide.error is not None
    assert not guide.is_complete
    assert allowed_by(guide, 300) == list(eos_ids())


@pytest.mark.parametrize(
    ("guided", "found"),
    [
        (GuidedDecoding(json_schema={"type": "nonsense"}), "nonsense"),
        (GuidedDecoding(json_schema={"if": {}}), "if"),
        (GuidedDecoding(json_schema={"$ref": "http://localhost/x"}), "localhost"),
        (GuidedDecoding(json_schema={"enum": [object()]}), "not JSON"),
        (GuidedDecoding(regex="(?=a)b"), "look-around"),
        (GuidedDecoding(regex="a" * (MAX_GRAMMAR_BYTES + 1)), "the limit is 65,536"),
    ],
)
def test_what_cannot_be_followed_is_refused_naming_response_format(guided: GuidedDecoding, found: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(found)) as refusal:
        factory().validate(guided)
    assert refusal.value.param == "response_format"


def test_a_model_without_eos_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"generation_config\.json"):
        GuideFactory(tokenizer(), [])


def test_only_guided_rows_of_a_batch_are_restricted() -> None:
    vocab = tokenizer().get_vocab_size()
    guide = factory().compile(GuidedDecoding(regex="a"))
    logits = torch.zeros((2, vocab))
    logits[:, 7] = 5.0
    greedy = SamplingParams(temperature=0.0)
    rows = [SamplingRow(greedy, [], [], 0), SamplingRow(greedy, [], [], 0, guide=guide)]
    free, guided = Sampler(vocab).sample(logits, rows)
    assert (free[0].token_id, guided[0].token_id) == (7, tokenizer().token_to_id("a"))
