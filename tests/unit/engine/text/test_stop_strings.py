"""Stop strings against a naive search over the whole text, however the text is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foveal.engine.text.stop_strings import StopStrings


def naive(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return (text[:end] if include else text[: end - len(stop)]), stop
    return text, None


def run(chunks: list[str], stops: list[str], include: bool) -> tuple[list[str], str | None]:
    matcher = StopStrings(stops, include_in_output=include)
    sent = []
    for chunk in chunks:
        match = matcher.push(chunk)
        sent.append(match.text)
        if match.stop is not None:
            return sent, match.stop
    return [*sent, matcher.flush()], None


small_text = st.text(alphabet="ab\n", max_size=6)


@given(
    chunks=st.lists(small_text, max_size=12),
    stops=st.lists(small_text.filter(bool), min_size=1, max_size=4),
    include=st.booleans(),
)
def test_the_streamed_result_is_the_naive_search_over_the_whole_text(
    chunks: list[str], stops: list[str], include: bool
) -> None:
    sent, stop = run(chunks, stops, include)
    assert ("".join(sent), stop) == naive("".join(chunks), stops, include)


@given(chunks=st.lists(small_text, max_size=12), stops=st.lists(small_text.filter(bool), min_size=1, max_size=3))
def test_text_is_held_back_only_while_it_may_begin_a_stop_string(chunks: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    seen = sent = ""
    for chunk in chunks:
        match = matcher.push(chunk)
        seen += chunk
        sent += match.text
        if match.stop is not None:
            return
        held = seen[len(sent) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_a_stop_string_across_many_tokens_never_leaks() -> None:
    assert run(["Hi", "\n", "\n", "Us", "er:", " x"], ["\n\nUser:"], False) == (["Hi", "", "", "", ""], "\n\nUser:")


def test_a_false_start_is_released_at_once() -> None:
    assert run(["a", "b", "x"], ["abc"], False) == (["", "", "abx", ""], None)


def test_the_string_completed_first_wins_whatever_the_cut() -> None:
    for chunks in (["abcd"], ["a", "b", "c", "d"], ["ab", "cd"]):
        sent, stop = run(chunks, ["abcd", "bc"], False)
        assert ("".join(sent), stop) == ("a", "bc")


def test_matches_before_it_is_armed_are_let_through() -> None:
    matcher = StopStrings(["end"])
    assert matcher.push("the end", armed=False).text == "the end"
    assert matcher.push(" en", armed=False).text == " "
    assert matcher.push("d").stop == "end"


def test_without_stop_strings_nothing_is_held() -> None:
    assert run(["a", "b"], [], False) == (["a", "b", ""], None)
