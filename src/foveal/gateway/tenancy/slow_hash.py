"""scrypt for API keys at rest. Source: RFC 7914; a hash carries its own parameters, so that they can be raised later."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

__all__ = ["DEFAULT_LOG2_N", "hash_secret", "verify_secret"]

DEFAULT_LOG2_N = 14
"""16 MiB and about 80 ms of one core."""
_R, _P, _SALT_BYTES, _HASH_BYTES = 8, 1, 16, 32


def hash_secret(secret: bytes, log2_n: int = DEFAULT_LOG2_N) -> str:
    """`scrypt$14$8$1$salt$hash`, the last two in base64. Releases the GIL while it works."""
    salt = os.urandom(_SALT_BYTES)
    digest = _scrypt(secret, salt, log2_n, _R, _P)
    return f"scrypt${log2_n}${_R}${_P}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def verify_secret(secret: bytes, stored: str) -> bool:
    """Whether `stored` was made of `secret`, compared in constant time. False for a hash that cannot be read."""
    try:
        scheme, log2_n, r, p, salt, digest = stored.split("$")
        if scheme != "scrypt":
            return False
        found = _scrypt(secret, base64.b64decode(salt), int(log2_n), int(r), int(p))
        return hmac.compare_digest(found, base64.b64decode(digest))
    except ValueError:
        return False


def _scrypt(secret: bytes, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    n = 1 << log2_n
    # OpenSSL refuses what needs more than maxmem; scrypt needs 128 * N * r bytes and a little.
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=160 * n * r + (1 << 20), dklen=_HASH_BYTES)
