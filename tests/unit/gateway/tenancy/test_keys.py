"""Keys at rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.gateway.state.connection import open_connection
from foveal.gateway.state.schema import MIGRATIONS
from foveal.gateway.tenancy.api_key import HINT_BYTES, make_key, split_key
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.slow_hash import hash_secret, verify_secret


def test_a_secret_verifies_against_its_own_hash_only() -> None:
    stored = hash_secret(b"right", log2_n=4)
    assert verify_secret(b"right", stored)
    assert not verify_secret(b"wrong", stored)
    assert hash_secret(b"right", log2_n=4) != stored, "each hash has its own salt"


def test_the_hash_is_scrypt_with_the_parameters_it_names() -> None:
    scheme, log2_n, r, p, _, _ = hash_secret(b"x").split("$")
    assert (scheme, int(log2_n) >= 14, r, p) == ("scrypt", True, "8", "1")


@pytest.mark.parametrize(
    "stored", ["", "scrypt$4$8$1$$", "md5$4$8$1$YQ==$YQ==", "scrypt$x$8$1$YQ==$YQ==", "scrypt$4$8$1$?$?"]
)
def test_an_unreadable_hash_verifies_nothing(stored: str) -> None:
    assert not verify_secret(b"", stored)


def test_a_key_is_id_and_256_random_bits_and_the_record_holds_neither_text_nor_secret() -> None:
    new = make_key("acme", "note", 1.0, log2_n=4)
    key_id, secret = split_key(new.text.encode())
    assert key_id.decode() == new.record.id
    assert len(secret) >= 43
    assert len(new.record.hint) == HINT_BYTES == 2
    assert secret.decode() not in repr(new) + repr(new.record)


def test_the_store_keeps_revokes_and_lists(tmp_path: Path) -> None:
    connection = open_connection(tmp_path / "s.db", MIGRATIONS)
    store = KeyStore(connection)
    first = store.create("acme", "one", 1.0, log2_n=4)
    store.create("other", "two", 2.0, expires_at=5.0, log2_n=4)
    assert [(r.tenant, r.name) for r in store.all()] == [("acme", "one"), ("other", "two")]
    assert [r.name for r in store.all("other")] == ["two"]
    assert store.revoke(first.record.id, 3.0).revoked_at == 3.0
    assert store.revoke(first.record.id, 4.0).revoked_at == 3.0
    with pytest.raises(ConfigurationError, match="there is no key nope"):
        store.revoke("nope", 1.0)
    assert first.text.encode() not in (tmp_path / "s.db").read_bytes() + (tmp_path / "s.db-wal").read_bytes()
    connection.close()


def test_the_generation_counts_changes_of_keys_and_nothing_else(tmp_path: Path) -> None:
    connection = open_connection(None, MIGRATIONS)
    store = KeyStore(connection)
    seen = [store.generation()]
    key = store.create("acme", "one", 1.0, log2_n=4)
    seen.append(store.generation())
    store.note_use({key.record.id: 9.0})
    assert store.generation() == seen[-1]
    store.revoke(key.record.id, 2.0)
    seen.append(store.generation())
    assert sorted(set(seen)) == seen
    assert store.all()[0].last_used_at == 9.0
    connection.close()


def test_validity_ends_with_revocation_and_expiry() -> None:
    record = make_key("a", "", 1.0, expires_at=10.0, log2_n=4).record
    assert record.is_valid(9.9)
    assert not record.is_valid(10.0)
