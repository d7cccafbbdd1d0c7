"""What holds for every proposer; and what is special about each."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from foveal.core.image_span import ImageSpan
from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.execution.guided import Guide, GuideFactory
from foveal.engine.execution.proposers.base import DraftJob, Proposer
from foveal.engine.execution.proposers.draft_model import DraftModelProposer
from foveal.engine.execution.proposers.draft_vocabulary import DraftVocabulary
from foveal.engine.execution.proposers.grammar import GrammarProposer
from foveal.engine.execution.proposers.ngram import NgramProposer
from foveal.engine.execution.sampler import Sampler
from foveal.engine.execution.sampling.row import SamplingRow
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.engine.scheduling.speculation.statistics import PROPOSERS
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import tiny_model, tiny_processor

VOCABULARY = 280
PLACEHOLDER = 100_000
"""Beyond the vocabulary, as some models' image tokens are."""


def draft_proposer(*, size: int | None = None, pool_tokens: int = 4096) -> DraftModelProposer:
    torch.set_num_threads(1)
    model = tiny_model("llama")
    features = torch.randn((4, 64), generator=torch.Generator().manual_seed(0))
    return DraftModelProposer(
        model,
        DraftVocabulary(model, VOCABULARY, size=size),
        Sampler(VOCABULARY),
        {b"cat": features}.get,
        pool_tokens=pool_tokens,
    )


MAKERS: dict[str, Callable[[], Proposer]] = {
    "grammar": GrammarProposer,
    "ngram": NgramProposer,
    "draft": draft_proposer,
    "draft, small vocabulary": lambda: draft_proposer(size=90),
    "draft, small pool": lambda: draft_proposer(pool_tokens=64),
}


def token_ids(text: str) -> tuple[int, ...]:
    return tuple(tiny_processor("llama").tokenizer.encode(text, add_special_tokens=False))


def guide() -> Guide:
    schema = {"type": "object", "properties": {"colour_of_it": {"enum": ["red"]}}, "required": ["colour_of_it"]}
    factory = GuideFactory(tiny_processor("llama").tokenizer, (258,))
    return factory.compile(GuidedDecoding(json_schema=schema | {"additionalProperties": False}))


def job(
    name: str = "a",
    prompt: Sequence[int] = (1, 2, 3, 4, 1, 2, 3),
    output: Sequence[int] = (4, 1, 2),
    *,
    limit: int = 5,
    prefix: tuple[int, ...] = (),
    image: bool = False,
    guided: bool = False,
    **sampling: object,
) -> DraftJob:
    tokens = list(prompt)
    images: tuple[ImageRef, ...] = ()
    spans: tuple[ImageSpan, ...] = ()
    if image:
        images, spans = (ImageRef(b"cat", 4, 1024, 16),), (ImageSpan(len(tokens), 4, 0),)
        tokens += [PLACEHOLDER] * 4 + list(prompt)
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 50} | sampling)
    request = Request(name, tokens, params, 0.0, images=images, spans=spans, output_token_ids=list(output))
    walked = guide() if guided else None
    if walked is not None:
        for token in output:
            walked.advance(token)
    row = SamplingRow(params, tokens, request.output_token_ids, seed=3, guide=walked)
    return DraftJob(request, row, limit, prefix)


def jobs(name: str) -> list[DraftJob]:
    """A batch of what there is: images, guides, sampling, penalties, something in front."""
    return [
        job("plain"),
        job("image", image=True),
        job("sampled", temperature=1.0, top_p=0.9, repetition_penalty=1.2),
        job("prefixed", prefix=(3, 4), limit=3),
        job("one token", limit=1),
        job("guided", output=token_ids('{"'), guided=True, limit=8),
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_it_proposes_ordinary_tokens_and_no_more_than_asked_for(name: str) -> None:
    proposer = MAKERS[name]()
    assert proposer.name in PROPOSERS
    batch = jobs(name)
    found = proposer.propose(batch)
    assert len(found) == len(batch)
    for one, tokens in zip(batch, found, strict=True):
        assert len(tokens) <= one.limit
        assert all(0 <= token < VOCABULARY for token in tokens)
    assert any(found), "nothing was proposed: the test proves nothing"


@pytest.mark.parametrize("name", MAKERS)
def test_it_answers_the_same_again_and_changes_nothing_of_the_request(name: str) -> None:
    proposer, batch = MAKERS[name](), jobs(name)
    before = [(list(j.request.output_token_ids), list(j.row.output_token_ids), _mask(j)) for j in batch]
    first = proposer.propose(batch)
    assert proposer.propose(batch) == first
    assert [(list(j.request.output_token_ids), list(j.row.output_token_ids), _mask(j)) for j in batch] == before


@pytest.mark.parametrize("name", [name for name in MAKERS if "pool" not in name])
def test_what_it_remembers_makes_no_difference(name: str) -> None:
    """Through rounds with accepted, rejected and partly accepted drafts it proposes what a fresh proposer would."""
    rng = random.Random(5)
    old, one = MAKERS[name](), job("a", image=True, limit=4)
    for _ in range(12):
        prefix = tuple(rng.choice(((), (), (1, 2))))
        asked = replace(one, prefix=prefix, limit=rng.randint(1, 6))
        found = old.propose([asked])
        assert found == MAKERS[name]().propose([asked])
        accepted = [*prefix, *found[0]][: rng.randint(0, 4)]
        one.request.output_token_ids += [*accepted, rng.randint(1, 4)]


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_kept_of_a_request_that_ended(name: str) -> None:
    proposer, batch = MAKERS[name](), jobs(name)
    proposer.propose(batch)
    for one in batch:
        proposer.forget(one.request.request_id)
    proposer.forget("never seen")
    assert proposer.num_held == 0


@pytest.mark.parametrize("name", MAKERS)
def test_no_jobs_are_no_work(name: str) -> None:
    assert MAKERS[name]().propose([]) == []


def _mask(one: DraftJob) -> list[int]:
    if one.row.guide is None:
        return []
    words = torch.zeros((VOCABULARY + 31) // 32, dtype=torch.int32)
    one.row.guide.write_mask(words)
    return words.tolist()


# --- n-gram ---------------------------------------------------------------------------------------------------------


def ngram(prompt: Sequence[int], output: Sequence[int] = (), **options: object) -> list[int]:
    return NgramProposer().propose([job("a", prompt, output, **options)])[0]  # type: ignore[arg-type]


def test_ngram_proposes_what_followed_the_same_tokens_before() -> None:
    assert ngram([5, 6, 7, 8, 9, 1, 2, 5, 6], limit=3) == [7, 8, 9]


def test_ngram_takes_the_longest_match_and_among_those_the_latest() -> None:
    assert ngram([1, 2, 3, 4, 50, 9, 3, 4, 60, 1, 2, 3, 4], limit=1) == [50]
    assert ngram([3, 4, 50, 9, 3, 4, 60, 9, 9, 3, 4], limit=1) == [60]


def test_ngram_runs_on_through_a_repetition() -> None:
    assert ngram([1], [7, 8, 7, 8], limit=5) == [7, 8, 7, 8, 7]


def test_ngram_stays_silent_without_a_match_and_on_a_single_token() -> None:
    assert ngram([1, 2, 3, 4, 5, 6, 7, 8, 1], limit=4) == []


def test_ngram_never_reaches_into_an_image() -> None:
    one = job("a", (1, 2, 3), (9, 1, 2, 3), image=True)
    index = one.request.prompt_token_ids
    assert PLACEHOLDER in index
    # 1 2 3 occurs before the image (followed by it) and behind it (followed by the output).
    assert NgramProposer().propose([one])[0] == [9, 1, 2, 3, 9]
    before = job("b", (1, 2, 3), (), image=True)
    before.request.prompt_token_ids[-3:] = [8, 2, 3]
    assert NgramProposer().propose([before])[0] == []


# --- grammar --------------------------------------------------------------------------------------------------------


def test_grammar_proposes_text_that_leaves_no_choice_and_nothing_where_there_is_one() -> None:
    forced = GrammarProposer().propose([job("a", output=token_ids('{"'), guided=True, limit=16)])[0]
    assert tuple(forced) == token_ids('colour_of_it"')
    free = job("b", output=(), guided=True, limit=16)
    assert GrammarProposer().propose([free])[0] in ([], [*token_ids("{")])
    assert GrammarProposer().propose([job("c")])[0] == []


# --- draft model ----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_draft_model_proposes_the_greedy_continuation_of_its_own_model() -> None:
    one = job("a", limit=4)
    model = tiny_hf_model("llama")
    tokens = one.request.token_slice(0, one.request.num_tokens)
    for _ in range(4):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert draft_proposer().propose([one])[0] == tokens[-4:]


@torch.inference_mode()
def test_draft_model_reads_the_targets_image_features_in_place_of_placeholders() -> None:
    one = job("a", image=True, limit=1)
    proposer = draft_proposer()
    model = tiny_hf_model("llama")
    tokens = torch.tensor(one.request.token_slice(0, one.request.num_tokens))
    embeddings = model.get_input_embeddings()(tokens.where(tokens < VOCABULARY, 0))
    embeddings[tokens == PLACEHOLDER] = torch.randn((4, 64), generator=torch.Generator().manual_seed(0))
    expected = int(model(inputs_embeds=embeddings[None]).logits[0, -1].argmax())
    assert proposer.propose([one])[0] == [expected]


def test_draft_model_stays_silent_where_an_images_features_are_gone() -> None:
    model = tiny_model("llama")
    blind = DraftModelProposer(
        model, DraftVocabulary(model, VOCABULARY), Sampler(VOCABULARY), lambda _: None, pool_tokens=512
    )
    assert blind.propose([job("a", image=True), job("b")])[0] == []


def test_draft_model_reads_a_long_prompt_in_pieces_over_several_steps() -> None:
    prompt = [token % 200 for token in range(700)]
    proposer, one = draft_proposer(), job("a", prompt, (5,), limit=3)
    assert proposer.propose([one])[0] == []
    assert len(proposer.propose([one])[0]) == 3


def test_draft_model_gives_the_room_of_idle_requests_to_those_that_decode() -> None:
    proposer = draft_proposer(pool_tokens=32)
    first = proposer.propose([job("a")])
    assert proposer.propose([job("b")]) == first
    assert proposer.num_held == 2
    assert proposer.propose([job("c")]) == first
    assert proposer.num_held == 2


def test_draft_model_with_a_small_vocabulary_proposes_the_best_of_it() -> None:
    one = job("a", limit=1)
    with torch.inference_mode():
        logits = tiny_hf_model("llama")(torch.tensor([one.request.token_slice(0, one.request.num_tokens)])).logits[
            0, -1
        ]
    for size in (40, 90, None):
        assert draft_proposer(size=size).propose([one])[0] == [int(logits[:size].argmax())]


def test_end_tokens_are_in_every_draft_vocabulary() -> None:
    model = tiny_model("llama")
    vocabulary = DraftVocabulary(model, VOCABULARY, size=10, always=(258, 9999))
    assert vocabulary.size == 11
    wide = vocabulary.widen(torch.zeros((1, 11)))
    assert wide.shape == (1, VOCABULARY)
    assert wide[0].isfinite().nonzero()[:, 0].tolist() == [*range(10), 258]
