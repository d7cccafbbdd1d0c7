"""API keys: `fvl_<id>_<secret>`. The id is public and finds the record; the secret is 256 random bits."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from foveal.gateway.tenancy.slow_hash import DEFAULT_LOG2_N, hash_secret

__all__ = ["HINT_BYTES", "KeyRecord", "NewKey", "hint_of", "make_key", "split_key"]

HINT_BYTES = 2
_PREFIX = b"fvl_"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key at rest. Times are seconds since 1970 (UTC)."""

    id: str
    tenant: str
    name: str
    hint: bytes
    """16 bits of the secret's SHA-256: one wrong secret in 65,536 gets as far as the slow hash. It gives away 16 of 256
    random bits, which helps nobody."""
    hash: str
    """See slow_hash."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewKey:
    text: str
    """Shown once, stored nowhere."""
    record: KeyRecord

    def __repr__(self) -> str:
        return f"NewKey({self.record.id})"


def make_key(
    tenant: str, name: str, now: float, *, expires_at: float | None = None, log2_n: int = DEFAULT_LOG2_N
) -> NewKey:
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    record = KeyRecord(
        key_id, tenant, name, hint_of(secret.encode()), hash_secret(secret.encode(), log2_n), now, expires_at
    )
    return NewKey(f"fvl_{key_id}_{secret}", record)


def split_key(text: bytes) -> tuple[bytes, bytes]:
    """Id and secret; (b"", text) for what is not one of our keys, so that it can be refused in the same steps."""
    if not text.startswith(_PREFIX):
        return b"", text
    key_id, _, secret = text[len(_PREFIX) :].partition(b"_")
    return key_id, secret


def hint_of(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()[:HINT_BYTES]
