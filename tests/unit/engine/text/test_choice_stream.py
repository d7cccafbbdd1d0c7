"""A choice from token ids to deltas: stop strings, stop tokens, lengths."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models

from foveal.core.sampling_params import SamplingParams
from foveal.engine.outputs import ChoiceDelta, TokenLogprob
from foveal.engine.scheduling.request import FinishReason
from foveal.engine.text.choice_stream import ChoiceStream
from foveal.engine.text.token_bytes import TokenBytes

PIECES = ["<eos>", *"abcdefgh", "Ġ", "ab", "bc"]
ID = {piece: i for i, piece in enumerate(PIECES)}


def table() -> TokenBytes:
    tokenizer = Tokenizer(models.BPE(dict(ID), []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return TokenBytes(tokenizer)


def stream(**params: Any) -> ChoiceStream:
    return ChoiceStream(0, SamplingParams(max_tokens=None, **params), table())


def ids(*pieces: str) -> list[int]:
    return [ID[piece] for piece in pieces]


def present(delta: ChoiceDelta | None) -> ChoiceDelta:
    assert delta is not None
    return delta


def test_a_stop_string_ends_the_choice_and_late_tokens_are_dropped() -> None:
    choice = stream(stop=("cd",))
    assert present(choice.append(ids("a", "b", "c"))).text == "ab"
    delta = present(choice.append(ids("d", "e", "f")))
    assert (delta.text, delta.token_ids) == ("", tuple(ids("d")))
    assert (delta.finish_reason, delta.stop_reason) == (FinishReason.STOP, "cd")
    assert choice.finished
    assert choice.append(ids("g")) is None


def test_the_stop_string_is_kept_on_request() -> None:
    assert present(stream(stop=("cd",), include_stop_str_in_output=True).append(ids("a", "c", "d", "e"))).text == "acd"


def test_text_held_back_is_sent_when_the_length_limit_ends_the_choice() -> None:
    choice = stream(stop=("cde",))
    assert present(choice.append(ids("a", "c", "d"))).text == "a"
    delta = present(choice.append([], finish_reason=FinishReason.LENGTH))
    assert (delta.text, delta.finish_reason, delta.stop_reason) == ("cd", FinishReason.LENGTH, None)


def test_the_text_of_the_token_that_stopped_the_choice_is_left_out() -> None:
    stopped: dict[str, Any] = {"finish_reason": FinishReason.STOP, "stop_token_id": ID["e"]}
    delta = present(stream().append(ids("a", "e"), **stopped))
    assert (delta.text, delta.token_ids, delta.stop_reason) == ("a", tuple(ids("a", "e")), ID["e"])
    assert present(stream(include_stop_str_in_output=True).append(ids("a", "e"), **stopped)).text == "ae"
    eos = present(stream(skip_special_tokens=False).append(ids("a", "<eos>"), finish_reason=FinishReason.STOP))
    assert (eos.text, eos.stop_reason) == ("a", None)


def test_stop_strings_wait_for_min_tokens() -> None:
    choice = stream(stop=("b",), min_tokens=3)
    delta = present(choice.append(ids("a", "b", "c", "b", "d")))
    assert (delta.text, delta.stop_reason, choice.num_tokens) == ("abc", "b", 4)


def test_logprobs_follow_the_tokens_of_the_delta() -> None:
    entries = [TokenLogprob(i, -1.0, 1) for i in ids("a", "b", "c")]
    delta = present(stream(stop=("b",)).append(ids("a", "b", "c"), entries))
    assert delta.logprobs == tuple(entries[:2])


def test_an_abort_without_new_tokens_flushes() -> None:
    choice = stream(stop=("ab",))
    choice.append(ids("a"))
    delta = present(choice.append([], finish_reason=FinishReason.ABORT))
    assert (delta.text, delta.finish_reason) == ("a", FinishReason.ABORT)
