"""What --speculate accepts."""

from __future__ import annotations

import pytest

from foveal.core.errors import ConfigurationError
from foveal.engine.config import EngineConfig
from foveal.engine.speculate_option import SpeculateOption


@pytest.mark.parametrize(
    ("text", "proposers", "path"),
    [
        ("ngram", ("ngram",), None),
        ("grammar", ("grammar",), None),
        ("auto", ("grammar", "ngram"), None),
        ("draft:/models/small", ("draft",), "/models/small"),
        ("ngram, draft:org/name ,grammar", ("grammar", "ngram", "draft"), "org/name"),
        ("auto,draft:x", ("grammar", "ngram", "draft"), "x"),
    ],
)
def test_proposers_come_in_the_order_in_which_they_are_asked(text: str, proposers: tuple[str, ...], path: str) -> None:
    assert SpeculateOption.parse(text) == SpeculateOption(proposers, path)


@pytest.mark.parametrize("text", ["", "draft", "draft:", "ngram,", "medusa", "draft:a,draft:b"])
def test_anything_else_is_refused_with_what_would_be_accepted(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"draft:PATH|give one"):
        EngineConfig(model="m", speculate=text)


@pytest.mark.parametrize("tokens", [0, 17])
def test_the_length_has_limits(tokens: int) -> None:
    with pytest.raises(ConfigurationError, match="speculate_tokens"):
        EngineConfig(model="m", speculate="ngram", speculate_tokens=tokens)


def test_speculation_without_a_kv_cache_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="KV cache"):
        EngineConfig(model="m", speculate="ngram", kv_cache=False)
