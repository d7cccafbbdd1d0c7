"""A passport's digest follows what was done, and only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.artifacts.canonical_json import canonical_json, digest_of
from foveal.artifacts.passport import LinearEntry, Passport, Sizes, Source
from foveal.artifacts.passport_file import read_passport, record_proof, write_passport
from foveal.core.errors import PassportDigestError, PassportMissingError, PassportSchemaError, StorageError
from unit.artifacts.artefacts import make_artefact

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(recipe=st.dictionaries(st.text(), _json))
def test_a_passport_read_back_has_the_digest_it_was_written_with(recipe: dict[str, Any]) -> None:
    passport = _passport(recipe=recipe)
    copy = msgspec.json.decode(msgspec.json.encode(passport), type=Passport)
    assert copy.digest == passport.digest


@given(values=st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter_to_a_digest(values: dict[str, int]) -> None:
    assert digest_of(values) == digest_of(dict(reversed(values.items())))


def test_keys_that_are_numbers_become_text_before_they_are_sorted() -> None:
    assert canonical_json({10: 1, 9: 2}) == b'{"10":1,"9":2}'


def test_evaluation_and_verdict_leave_the_digest_as_it_is(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    proved = record_proof(tmp_path, evaluation={"perplexity": 12.5}, verdict={"accepted": True})
    assert proved.digest == passport.digest
    assert read_passport(tmp_path) == proved


@pytest.mark.parametrize(
    "change",
    [
        {"source": Source(name="base", digest="sha256:other")},
        {"recipe": {"preset": "nf4"}},
        {"calibration": None},
        {"linears": {}},
        {"sizes": Sizes(source_bytes=1, bytes=1)},
        {"tools": {}},
        {"files": {}},
        {"kind": "pruned"},
    ],
)
def test_every_other_field_is_in_the_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    passport = make_artefact(tmp_path)
    assert replace(passport, **change).digest != passport.digest


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    first = (tmp_path / "passport.json").read_bytes()
    write_passport(tmp_path, passport)
    assert (tmp_path / "passport.json").read_bytes() == first
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"samples": 128', '"samples": 512'),
        ('"samples": 128', '"samples": "many"'),
        ('"kept_reason": "output head"', '"kept_reason": null'),
        ('"kind": "rendered-tasks"', '"kind": "rendered-tasks", "blessed_by": "me"'),
        ('"schema_version": 1', '"schema_version": 1, "blessed_by": "me"'),
        ('"passport_digest": "sha256:', '"passport_digest": "sha512:'),
    ],
)
def test_a_changed_passport_no_longer_fits_its_digest(tmp_path: Path, old: str, new: str) -> None:
    make_artefact(tmp_path)
    _edit(tmp_path, old, new)
    with pytest.raises(PassportDigestError, match="changed after it was written"):
        read_passport(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 7}, "schema version 7; expected version 1"),
        ({"schema_version": "1"}, "schema version '1'"),
        ({"sizes": {"bytes": "many", "source_bytes": 1}}, "is not a passport"),
        ({"linears": {"lm_head": {"component": "head"}}}, "either quantised or kept"),
        ({"blessed_by": "me"}, "unknown or missing fields"),
        ({"calibration": {"digest": "d", "samples": 1, "kind": "jsonl", "extra": 1}}, "unknown or missing fields"),
    ],
)
def test_what_is_not_a_passport_says_where_even_if_its_digest_fits(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    make_artefact(tmp_path)
    path = tmp_path / "passport.json"
    record = msgspec.json.decode(path.read_bytes()) | change
    record.pop("passport_digest")
    digested = {name: value for name, value in record.items() if name not in ("evaluation", "verdict")}
    path.write_bytes(msgspec.json.encode(record | {"passport_digest": digest_of(digested)}))
    with pytest.raises(PassportSchemaError, match=message):
        read_passport(tmp_path)


@pytest.mark.parametrize("text", ["[", "[]", "", "\x00", '{"a": 1'])
def test_what_is_not_a_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "passport.json").write_text(text)
    with pytest.raises(PassportSchemaError, match=r"is not JSON|expected an object"):
        read_passport(tmp_path)


def test_a_directory_without_passport_says_who_writes_one(tmp_path: Path) -> None:
    with pytest.raises(PassportMissingError, match="foveal compress"):
        read_passport(tmp_path)


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path / "a")
    with pytest.raises(StorageError, match="no such file"):
        write_passport(tmp_path / "b", passport)


def test_a_linear_is_quantised_or_kept_but_never_both() -> None:
    with pytest.raises(ValueError, match="either quantised or kept"):
        LinearEntry(component="ffn", scheme="int8", kept_reason="why")


def test_the_narrowest_linear_gives_the_bits() -> None:
    linears = {str(bits): LinearEntry(component="ffn", scheme=f"int{bits}", bits=bits) for bits in (8, 3, 4)}
    assert _passport(linears=linears).narrowest_bits == 3
    assert _passport(linears={}).narrowest_bits is None


def _passport(**changes: Any) -> Passport:
    fields: dict[str, Any] = {
        "source": Source(name="base", digest="sha256:base"),
        "recipe": {},
        "linears": {},
        "sizes": Sizes(source_bytes=2, bytes=1),
        "files": {},
    }
    return Passport(**(fields | changes))


def _edit(directory: Path, old: str, new: str) -> None:
    path = directory / "passport.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
