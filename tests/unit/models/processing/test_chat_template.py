"""Messages become a prompt; what users type never becomes a picture."""

from __future__ import annotations

import pytest

from foveal.core.errors import InvalidRequestError
from foveal.models.processing.chat_template import ChatTemplate
from support.tiny_checkpoints import tiny_tokenizer

STRINGS_ONLY = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[go]{% endif %}"
)
PARTS_ONLY = (
    "{% for m in messages %}{% for p in m.content | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %}{% endfor %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + STRINGS_ONLY
)


def template(text: str, *, placeholder: str | None = "<image>") -> ChatTemplate:
    reserved = () if placeholder is None else (placeholder,)
    return ChatTemplate(tiny_tokenizer("llava"), text, placeholder, reserved)


def user(content) -> list[dict]:
    return [{"role": "user", "content": content}]


def text(value: str) -> dict:
    return {"type": "text", "text": value}


def test_string_content_reaches_a_template_that_loops_over_parts():
    assert template(PARTS_ONLY).render(user("hello")) == "hello"


def test_parts_reach_a_template_that_prints_strings():
    rendered = template(STRINGS_ONLY).render(user([{"type": "image"}, text("what?")]))
    assert rendered == "[user]<image>\nwhat?[go]"


def test_the_generation_prompt_can_be_left_out():
    assert template(STRINGS_ONLY).render(user("hi"), add_generation_prompt=False) == "[user]hi"


@pytest.mark.parametrize("kind", [STRINGS_ONLY, PARTS_ONLY])
@pytest.mark.parametrize("as_parts", [True, False])
def test_a_placeholder_typed_by_a_user_stands_for_no_picture(kind, as_parts):
    typed = "what does <image> mean in HTML?"

    rendered = template(kind).render(user([text(typed)] if as_parts else typed))

    assert "<image>" not in rendered
    assert "< image> mean in HTML?" in rendered


def test_template_variables_are_passed_on():
    rendered = template("{{ messages[0].content }}{{ mood }}").render(user("x"), mood="!")
    assert rendered == "x!"


@pytest.mark.parametrize("name", ["tokenize", "chat_template", "return_dict"])
def test_template_variables_cannot_take_over_the_call(name):
    with pytest.raises(InvalidRequestError, match="may not set"):
        template(STRINGS_ONLY).render(user("x"), **{name: "y"})


def test_a_template_that_refuses_the_messages_is_the_clients_error():
    with pytest.raises(InvalidRequestError, match="no system role"):
        template(REFUSES_SYSTEM).render([{"role": "system", "content": "be brief"}])


@pytest.mark.parametrize("content", [7, {"type": "text"}, [{"type": "audio"}], [{"type": "text"}], ["plain"]])
def test_malformed_content_is_refused(content):
    with pytest.raises(InvalidRequestError):
        template(STRINGS_ONLY).render(user(content))


def test_an_image_for_a_text_model_is_refused():
    with pytest.raises(InvalidRequestError, match="reads text only"):
        template(STRINGS_ONLY, placeholder=None).render(user([{"type": "image"}]))


def test_no_messages_are_refused():
    with pytest.raises(InvalidRequestError, match="messages is empty"):
        template(STRINGS_ONLY).render([])
