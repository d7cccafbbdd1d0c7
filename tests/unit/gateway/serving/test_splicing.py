from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.serving.splicing import Splice, inserted_field, json_text, spliced


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.binary(max_size=5))))
def test_spliced_parts_are_what_slicing_a_copy_gives(body: bytes, ranges: list[tuple[int, int, bytes]]) -> None:
    splices: list[Splice] = []
    for start, end, replacement in ranges:
        start, end = sorted((min(start, len(body)), min(end, len(body))))
        if all(end <= other.start or start >= other.end for other in splices) and start != end:
            splices.append(Splice(start, end, replacement))
    expected = body
    for splice in sorted(splices, key=lambda splice: -splice.start):
        expected = expected[: splice.start] + splice.replacement + expected[splice.end :]
    assert b"".join(spliced(body, splices)) == expected


def test_without_splices_the_body_itself_is_sent() -> None:
    body = bytearray(b"{}")
    assert spliced(body, [])[0] is body


def test_what_is_not_replaced_is_not_copied() -> None:
    body = bytearray(b'{"model":"a"}')
    parts = spliced(body, [Splice(10, 11, b"b")])
    assert [type(part) for part in parts] == [memoryview, bytes, memoryview]
    assert all(part.obj is body for part in parts if isinstance(part, memoryview))


def test_ranges_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match=r"range 1\.\.3"):
        spliced(b"abcdef", [Splice(0, 2, b""), Splice(1, 3, b"")])


@given(st.text(), st.text(), st.sampled_from((0, 1, 64, 1000)))
def test_a_name_is_replaced_and_a_field_added_whatever_they_hold(name: str, salt: str, num_blanks: int) -> None:
    body = b" " * num_blanks + b'{"model":"a","n":1}'
    start = body.index(b'"a"') + 1
    parts = spliced(body, [Splice(start, start + 1, json_text(name)), inserted_field(body, "cache_salt", salt)])
    assert json.loads(b"".join(parts)) == {"cache_salt": salt, "model": name, "n": 1}
