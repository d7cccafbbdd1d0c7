"""The draft's recipe on a tiny target: what it is taught, that it learns, and how it is marked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveal.demo.draft.acceptance import Acceptance, measure
from foveal.demo.draft.chat_prompts import HELD_OUT_TOPICS, held_out_prompts, training_prompts
from foveal.demo.draft.classroom import Classroom, Lesson
from foveal.demo.draft.examination import CHAT, by_subject, set_examination
from foveal.demo.draft.initial import cut_draft
from foveal.demo.draft.learning import LearningConfig, learn
from foveal.demo.draft.lessons import gather_rows, gather_texts, load_lessons, picture_parts, see_rows
from foveal.demo.draft.schooling import Minutes, Schooling
from foveal.demo.draft.shape import DraftShape
from foveal.demo.draft.writing import WrittenText, embed, read, render, write
from foveal.demo.training.packing import Row
from support.tiny_draft_target import QUESTIONS, tiny_pictures, tiny_target


def quiet(line: str) -> None:
    """Reports go nowhere."""


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a few texts and rows of the tiny target."""
    folder = tmp_path_factory.mktemp("lessons")
    target, pictures = tiny_target(), tiny_pictures()
    gather_texts(target, [[1, 2, 3, 4]], 1e-9, folder / "texts.0.pt", 0, 1, quiet)
    gather_rows(picture_parts(target, pictures, int8=False), 1e-9, folder / "rows.0.pt", 0, quiet)
    store = folder / "texts.0.pt"
    torch.save(((1.0, 1), write(target, [render(target, "hi"), render(target, "a")], 12)), store)
    yield folder


def classroom(folder: Path, seed: int = 0) -> Classroom:
    rows, texts = load_lessons(folder)
    parts = picture_parts(tiny_target(), tiny_pictures(), int8=False)
    return Classroom(parts, rows, texts, random.Random(seed), text_places=64)


def test_written_answers_are_those_of_generate_with_pictures_and_without() -> None:
    target = tiny_target()
    patches = target.projector(torch.from_numpy(tiny_pictures().features[0]).float())
    prompts = [render(target, "hello there"), render(target, "x", patches), render(target, "?")]
    for prompt, written in zip(prompts, write(target, prompts, 6), strict=True):
        assert len(prompt.ids) == written.first + 1
        expected = target.language.generate(
            inputs_embeds=embed(target, prompt.ids, prompt.patches)[None],
            attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.long),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=201,
        )
        assert written.ids[written.first + 1 :] == expected[0].tolist()
        assert written.likely[:, 0].tolist() == expected[0].tolist()


def test_states_kept_while_writing_are_those_of_reading_the_text_again() -> None:
    target = tiny_target()
    (written,) = write(target, [render(target, "abc")], 5)
    (again,) = read(target, [written.ids])
    torch.testing.assert_close(written.states, again.states[written.first :], atol=2e-2, rtol=2e-2)


def test_rows_tell_what_the_target_would_say_to_each_question_alone() -> None:
    target, pictures = tiny_target(), tiny_pictures()
    parts = picture_parts(target, pictures, int8=False)
    row = Row()
    asked = row.add_picture(2, QUESTIONS, parts.codec, 280, random.Random(0))
    (seen,) = see_rows(parts, [row], 288)
    states = iter(seen.states)
    patches = target.projector(torch.from_numpy(pictures.features[2]).float())
    for question in asked:
        prompt = render(target, question.text, patches)
        answer = parts.codec.question(question)[1]
        ids = prompt.ids + answer[:-1]
        expected = target.language.model(inputs_embeds=embed(target, ids, patches)[None]).last_hidden_state[0]
        for place in range(len(prompt.ids) - 1, len(ids)):
            torch.testing.assert_close(next(states).float(), expected[place], atol=2e-2, rtol=2e-2)


def test_a_lesson_shows_at_each_place_what_the_target_itself_computes_there(lessons: Path) -> None:
    """The packed view given to the draft, run through the target, gives the target's stored states."""
    target, lesson = tiny_target(), classroom(lessons).lesson()
    found = lesson.states_of(target.language)[lesson.places]
    torch.testing.assert_close(found, lesson.states, atol=3e-2, rtol=3e-2)
    head = target.language.lm_head.weight
    assert torch.equal((lesson.states @ head.T).argmax(-1), lesson.likely[:, 0].long())


def test_gathering_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    parts = picture_parts(tiny_target(), tiny_pictures(), int8=False)
    store = tmp_path / "rows.0.pt"
    gather_rows(parts, 1e-9, store, 0, quiet)
    first = store.read_bytes()
    gather_rows(parts, 1e-9, store, 0, quiet)
    assert store.read_bytes() == first
    (spent, number), items = torch.load(store, weights_only=False)
    gather_rows(parts, spent + 1e-9, store, 0, quiet)
    (_, later), more = torch.load(store, weights_only=False)
    assert (later, len(more)) == (number + 1, len(items) + 2)


def test_the_draft_begins_as_layers_of_the_target_with_its_embedding(lessons: Path) -> None:
    target = tiny_target()
    draft = cut_draft(target, [classroom(lessons).lesson()], DraftShape((0, 2), ffn_channels=24))
    assert draft.config.num_hidden_layers == 2
    assert draft.config.intermediate_size == 24
    assert torch.equal(draft.get_input_embeddings().weight, target.language.get_input_embeddings().weight)
    assert torch.equal(
        draft.model.layers[1].self_attn.q_proj.weight, target.language.model.layers[2].self_attn.q_proj.weight
    )
    trained = {name for name, p in draft.named_parameters() if p.requires_grad}
    assert not any("embed" in name for name in trained)
    assert len(trained) == 2 * 9 + 1
    assert not any(p.requires_grad for p in target.language.parameters())


def test_a_draft_learns_to_say_what_the_target_says(lessons: Path, tmp_path: Path) -> None:
    target, room = tiny_target(), classroom(lessons)
    draft = cut_draft(target, [room.lesson()], DraftShape((0, 2), ffn_channels=48))
    heard: list[str] = []
    config = LearningConfig(minutes=0.1, warm_up_steps=2, other_words=20, rate=3e-3)
    _, texts = load_lessons(lessons)
    before = measure(target, draft, texts).agreement
    learn(draft, room, config, tmp_path / "draft.pt", heard.append, lambda model: "examined")
    after = measure(target, draft, texts).agreement
    assert after > max(0.5, before)
    assert any("examined" in line for line in heard)


def test_learning_resumes_from_its_checkpoint(lessons: Path, tmp_path: Path) -> None:
    target, room, store = tiny_target(), classroom(lessons), tmp_path / "draft.pt"
    shape = DraftShape((0, 2), ffn_channels=24)
    first = cut_draft(target, [room.lesson()], shape)
    learn(first, room, LearningConfig(minutes=1e-9, other_words=5), store, quiet)
    second = cut_draft(target, [room.lesson()], shape)
    learn(second, room, LearningConfig(minutes=1e-9, other_words=5), store, quiet)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_all_steps_together_make_a_file(tmp_path: Path) -> None:
    heard: list[str] = []
    school = Schooling(
        folder=tmp_path,
        target=tiny_target(),
        pictures=tiny_pictures(),
        held_out=tiny_pictures(2),
        rehearsal=[[1, 2, 3]],
        shape=DraftShape((0, 1), ffn_channels=24),
        minutes=Minutes(1e-9, 1e-9, 1e-9),
        config=LearningConfig(minutes=1e-9, other_words=5),
        report=heard.append,
        int8=False,
        monitor_chats=1,
        monitor_pictures=1,
    )
    school.run()
    school.export(tmp_path / "draft.safetensors")
    assert (tmp_path / "draft.safetensors").stat().st_size == pytest.approx(
        school.shape.stored_bytes(128, 2, 1, 64), rel=0.05
    )
    assert "wrote" in heard[-1]


def test_an_examination_covers_tasks_and_chat() -> None:
    target, pictures = tiny_target(), tiny_pictures()
    examination = set_examination(target, pictures.pool, pictures.features, chats=2, pictures=3, chat_tokens=4)
    assert sum(len(texts) for subject, texts in examination.items() if subject != CHAT) == 6
    results = by_subject(target, target.language, examination)
    assert results[CHAT].agreement == 1.0  # the target agrees with itself
    assert results["pictures"].agreement == 1.0
    assert results["pictures"].answers == 6


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=20), min_size=1, max_size=5), st.integers(1, 8))
def test_rounds_are_those_of_a_played_out_speculation(answers: list[list[bool]], guesses: int) -> None:
    played = 0
    for answer in answers:
        place = 0
        while place < len(answer):
            window = answer[place : place + guesses]
            accepted = window.index(False) if False in window else len(window)
            place += accepted + 1  # and one token of the target's own
            played += 1
    found = Acceptance.of(answers, guesses)
    assert found.tokens_per_round == pytest.approx(sum(map(len, answers)) / played)
    assert found.agreement == pytest.approx(sum(map(sum, answers)) / found.tokens)


def test_perfect_and_hopeless_drafts_have_the_rates_one_expects() -> None:
    assert Acceptance.of([[True] * 10], guesses=4).tokens_per_round == 5.0
    assert Acceptance.of([[False] * 10], guesses=4).tokens_per_round == 1.0


def test_held_out_topics_are_never_trained_on() -> None:
    assert len(held_out_prompts(50)) == 50
    asked = " ".join(training_prompts())
    assert not any(f" {topic}" in asked for topic in HELD_OUT_TOPICS)


def test_the_shipped_shape_stays_below_twenty_megabytes() -> None:
    assert DraftShape().stored_bytes(hidden=576, heads=9, kv_heads=3, head_dim=64) == 19_919_232


def test_a_long_text_is_cut_to_the_row(lessons: Path) -> None:
    rows, _ = load_lessons(lessons)
    target = tiny_target()
    (text,) = read(target, [[1 + i % 100 for i in range(120)]])
    parts = picture_parts(target, tiny_pictures(), int8=False)
    room = Classroom(parts, rows, [text], random.Random(0), picture_rows=0, length=64, text_places=64)
    lesson: Lesson = room.lesson()
    assert lesson.x.shape == (1, 64, 128)
    assert int(lesson.places.max()) <= 62
    assert isinstance(text, WrittenText)
