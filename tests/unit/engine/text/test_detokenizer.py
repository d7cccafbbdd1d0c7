"""Streamed text equals the text decoded at once, for byte-level, byte-fallback and other decoders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from foveal.engine.text.detokenizer import detokenizer
from foveal.engine.text.token_bytes import TokenBytes

CORPUS = ["the cat sat on the mat", "Grüße aus Köln", "日本語のテキスト", "emoji 🙂🚀 and more 🙂", "a\n\tb  c"] * 3


@functools.cache
def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens([AddedToken("plain words"), AddedToken("naïve")])
    return tokenizer


@functools.cache
def byte_fallback() -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"▁abcdehmnost", "▁the", "▁cat", "ü", "日"]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


@functools.cache
def word_piece() -> Tokenizer:
    vocab = {p: i for i, p in enumerate(["[UNK]", "[SEP]", "the", "cat", "##s", "##ly", "mat", ",", "."])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.add_special_tokens(["[SEP]"])
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "word_piece": word_piece,
}


def stream(tokenizer: Tokenizer, ids: Iterable[int], *, skip: bool = True) -> list[str]:
    stream = detokenizer(TokenBytes(tokenizer), skip_special_tokens=skip)
    return [*(stream.append([i]) for i in ids), stream.flush()]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(["byte_level", "word_piece"]), skip=st.booleans())
def test_deltas_and_flush_are_the_full_decode_for_any_ids(data: st.DataObject, name: str, skip: bool) -> None:
    tokenizer = TOKENIZERS[name]()
    # A few ids beyond the vocabulary: models with padded embeddings can emit them.
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 3), max_size=40))
    assert "".join(stream(tokenizer, ids, skip=skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30), name=st.sampled_from(["byte_level", "byte_fallback"]))
def test_deltas_of_any_text_are_the_full_decode_without_replacement_characters(text: str, name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    if name == "byte_fallback":
        text = "▁" + text.replace(" ", "▁")
    ids = tokenizer.encode(text).ids
    deltas = stream(tokenizer, ids)
    full = tokenizer.decode(ids)
    assert "".join(deltas) == full
    if "\ufffd" not in full:
        assert all("\ufffd" not in delta for delta in deltas)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_byte_fallback_agrees_wherever_byte_runs_are_utf8(data: st.DataObject) -> None:
    tokenizer = byte_fallback()
    pieces = st.one_of(
        st.sampled_from([0, 1, 2, *range(259, tokenizer.get_vocab_size())]).map(lambda i: [i]),
        st.characters(codec="utf-8").map(lambda c: [3 + b for b in c.encode()]),
    )
    ids = [i for piece in data.draw(st.lists(pieces, max_size=30)) for i in piece]
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_an_emoji_arrives_whole_with_its_last_byte() -> None:
    tokenizer = byte_fallback()
    ids = [3 + byte for byte in "🙂".encode()]
    assert stream(tokenizer, ids) == ["", "", "", "🙂", ""]


def test_an_unfinished_character_appears_as_one_replacement_at_the_end() -> None:
    ids = [3 + byte for byte in "🙂".encode()[:3]]
    assert stream(byte_fallback(), ids) == ["", "", "", "\ufffd"]


def test_special_tokens_are_shown_on_request_only() -> None:
    tokenizer = byte_level()
    ids = [*tokenizer.encode("the cat").ids, tokenizer.token_to_id("<|end|>")]
    assert "".join(stream(tokenizer, ids)) == "the cat"
    assert "".join(stream(tokenizer, ids, skip=False)) == "the cat<|end|>"


def test_a_leading_space_stays_where_the_output_continues_the_prompt() -> None:
    tokenizer = byte_fallback()
    the = tokenizer.token_to_id("▁the")
    table = TokenBytes(tokenizer)
    assert detokenizer(table).append([the, the]) == "the the"
    assert detokenizer(table, continues_text=True).append([the, the]) == " the the"


def test_a_slow_tokenizer_is_refused_with_a_remedy() -> None:
    with pytest.raises(TypeError, match=r"tokenizer\.json"):
        TokenBytes(object())
