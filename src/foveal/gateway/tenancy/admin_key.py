"""The admin key: one secret of the configuration, apart from the tenants' keys."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping

from foveal.core.errors import UnauthorizedError

__all__ = ["AdminKey"]


class AdminKey:
    """`key` None shuts the admin API."""

    def __init__(self, key: str | None) -> None:
        self._pepper = os.urandom(32)
        self._digest = None if key is None else self._digest_of(key.encode())

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises UnauthorizedError unless `Authorization: Bearer KEY` holds the key; compared in constant time."""
        value = headers.get(b"authorization", b"")
        sent = self._digest_of(value[7:].strip() if value[:7].lower() == b"bearer " else b"")
        if self._digest is None:
            raise UnauthorizedError("the admin API is off; set `admin: {key: ...}` in the configuration")
        if not hmac.compare_digest(sent, self._digest):
            raise UnauthorizedError("the admin key is missing or wrong; send `Authorization: Bearer ADMIN_KEY`")

    def _digest_of(self, key: bytes) -> bytes:
        # Digests of equal length: a plain comparison would give away the key's length.
        return hashlib.blake2b(key, digest_size=32, key=self._pepper).digest()
