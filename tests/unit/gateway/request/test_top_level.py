"""The places of an object's own fields, whatever is nested in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import InvalidRequestError
from foveal.gateway.request import top_level
from foveal.gateway.request.top_level import top_level_spans
from support.json_writer import write_json

_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=6)
)
_VALUES = st.recursive(
    st.one_of(_LEAVES, st.lists(st.integers(), max_size=4), st.sampled_from(['":"', "[1,2]", "{", '\\"', "],"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=5), _VALUES, max_size=5), st.integers(0, 2**32), st.sampled_from((0.0, 0.5)))
def test_every_field_is_found_where_its_value_stands(value: dict[str, Any], seed: int, escape_rate: float) -> None:
    text = write_json(value, seed, escape_rate)

    spans = top_level_spans(text)

    assert {name: json.loads(text[start:end]) for name, (start, end) in spans.items()} == value
    assert all(text[start:end] == text[start:end].strip() for start, end in spans.values())


def test_the_last_of_equal_names_counts() -> None:
    text = b'{"a":1,"a" : 22 }'

    assert text[slice(*top_level_spans(text)["a"])] == b"22"


@pytest.mark.parametrize("name", [b"\xff", b"\\q", b"\\ud800\\u0041\\uzzzz"])
def test_a_name_that_is_no_text_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="field's name"):
        top_level_spans(b'{"%b":1,"model":"m"}' % name)


def test_lists_of_token_ids_are_walked_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_level, "_MOST_TOKENS", 20)
    text = json.dumps({"prompt": [list(range(1000))] * 2, "model": "m"}).encode()

    assert text[slice(*top_level_spans(text)["model"])] == b'"m"'
    with pytest.raises(InvalidRequestError, match="JSON tokens"):
        top_level_spans(json.dumps({"prompt": ["a"] * 20}).encode())
