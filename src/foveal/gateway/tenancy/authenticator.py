"""API key -> tenant: a digest look-up for keys seen before, one slow hash for each new one, nothing slow for wrong ones."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from foveal.core.errors import OverloadedError, UnauthorizedError
from foveal.gateway.config.access import AuthConfig
from foveal.gateway.state.database import StateClosedError, StateDatabase
from foveal.gateway.tenancy.api_key import HINT_BYTES, KeyRecord, hint_of, split_key
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.rate import Rate
from foveal.gateway.tenancy.slow_hash import verify_secret
from foveal.gateway.tenancy.tenant import Tenant

__all__ = ["Authenticator"]

_MAX_KEY_BYTES = 256
_SMALL_BODY = 16 << 10
_MAX_PENDING_HASHES = 128
# A key made by another process a moment ago works at once; a flood of wrong keys reads the file this often and no more.
_REREAD_COST_S, _REREAD_BURST_S = 0.25, 1.0
_NOBODY = KeyRecord("", "", "", bytes(HINT_BYTES), "", 0.0)
_log = structlog.get_logger(__name__)


class _Verified:
    """A key that passed the slow hash."""

    __slots__ = ("digest", "expires_at", "key_id", "tenant", "used")

    def __init__(self, digest: bytes, record: KeyRecord, used: bool = True) -> None:
        self.digest = digest
        self.key_id = record.id
        self.tenant = record.tenant
        self.expires_at = record.expires_at or float("inf")
        self.used = used


class Authenticator:
    """Belongs to one event loop. `wall_s` is seconds since 1970, `now_s` monotonic; `verify` is the slow hash."""

    def __init__(
        self,
        database: StateDatabase,
        tenants: Mapping[str, Tenant],
        config: AuthConfig,
        *,
        now_s: Callable[[], float],
        wall_s: Callable[[], float],
        verify: Callable[[bytes, str], bool] = verify_secret,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._config = config
        self._now_s = now_s
        self._wall_s = wall_s
        self._verify = verify
        # Digests are keyed with it: nobody outside can choose where in the table a key lands.
        self._pepper = os.urandom(32)
        self._records: dict[bytes, KeyRecord] = {}
        self._generation = -1
        self._rereads = Rate()
        self._refreshing: asyncio.Task[None] | None = None
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._seen_value: bytes | None = None
        self._seen: _Verified | None = None
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[KeyRecord | None]] = {}
        # One thread: however many new keys come, hashing takes at most one core.
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="key hash")

    def replace(self, tenants: Mapping[str, Tenant], config: AuthConfig) -> None:
        """After a reload of the configuration; keys stay verified."""
        self._tenants = tenants
        self._config = config

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Tenant:
        """`headers` by lower-case name. `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises UnauthorizedError, and OverloadedError when too many new keys wait for their first check.
        """
        value = headers.get(b"authorization") or headers.get(b"x-api-key")
        if value is not None and value is self._seen_value:
            # `refuse_early` looked at this very header a moment ago.
            known: _Verified | None = self._seen
        else:
            known = self._find(headers)
        if known is None:
            known = await self._check_new(headers)
        if self._wall_s() >= known.expires_at:
            raise _wrong_key()
        known.used = True
        tenant = self._tenants.get(known.tenant)
        if tenant is None:
            raise UnauthorizedError(
                f"the key belongs to tenant {known.tenant}, which is not configured; ask the operator"
            )
        return tenant

    def refuse_early(self, headers: Mapping[bytes, bytes]) -> UnauthorizedError | None:
        """Before the body is read: what is wrong as far as is known. None also for what needs a closer look.

        Whoever may send a body holds its bytes of the budget, and for that nobody is trusted on his word: a key that is not
        known yet gets its closer look at once only with a small body. With another the file is read for the next time.
        """
        known = self._find(headers)
        if known is not None:
            self._seen_value = headers.get(b"authorization") or headers.get(b"x-api-key")
            self._seen = known
            return None
        text = _key_text(headers)
        if text is None:
            return _no_key()
        if self._plausible(*split_key(text)) is None:
            if _has_small_body(headers):
                return None
            self._reread()
            return _wrong_key()
        return _wrong_key() if self._digest(text) in self._refused else None

    async def refresh(self) -> None:
        """Takes over keys made or revoked by any process since. A file that cannot be read leaves things as they are."""
        await asyncio.shield(self._refreshing or self._start_refresh())

    def _start_refresh(self) -> asyncio.Task[None]:
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
        return self._refreshing

    async def _refresh(self) -> None:
        try:
            found = await self._database.run(self._read_if_changed)
        except (sqlite3.Error, StateClosedError) as error:
            _log.error("keys could not be read", error=str(error))
            return
        finally:
            self._refreshing = None
        if found is not None:
            self._take(*found)

    def note_use(self) -> None:
        """Writes down, some time soon, which keys were used since the last call."""
        used = [known.key_id for known in self._verified.values() if known.used]
        for known in self._verified.values():
            known.used = False
        if used:
            now = self._wall_s()
            self._database.post(lambda connection: KeyStore(connection).note_use([(key_id, now) for key_id in used]))

    def close(self) -> None:
        self._hasher.shutdown(wait=False, cancel_futures=True)

    def _read_if_changed(self, connection: sqlite3.Connection) -> tuple[int, list[KeyRecord]] | None:
        store = KeyStore(connection)
        generation = store.generation()
        return None if generation == self._generation else (generation, store.all())

    def _take(self, generation: int, records: list[KeyRecord]) -> None:
        if generation <= self._generation:  # an older answer overtaken by a newer one
            return
        self._generation = generation
        self._seen_value = self._seen = None
        self._records = {record.id.encode(): record for record in records}
        now = self._wall_s()
        for digest, known in list(self._verified.items()):
            record = self._records.get(known.key_id.encode())
            if record is None or not record.is_valid(now):
                del self._verified[digest]
            else:
                self._verified[digest] = _Verified(digest, record, known.used)

    def _digest(self, text: bytes) -> bytes:
        return hashlib.blake2b(text, digest_size=32, key=self._pepper).digest()

    def _find(self, headers: Mapping[bytes, bytes]) -> _Verified | None:
        """The key if it was seen before."""
        text = _key_text(headers)
        if text is None:
            return None
        digest = self._digest(text)
        known = self._verified.get(digest)
        return known if known is not None and hmac.compare_digest(known.digest, digest) else None

    async def _check_new(self, headers: Mapping[bytes, bytes]) -> _Verified:
        """Every wrong key takes the same steps, whatever is wrong with it. Raises UnauthorizedError, OverloadedError."""
        text = _key_text(headers)
        if text is None:
            raise _no_key()
        digest = self._digest(text)
        key_id, secret = split_key(text)
        record = self._plausible(key_id, secret)
        if record is None and (rereading := self._reread()) is not None:
            await asyncio.shield(rereading)
            record = self._plausible(key_id, secret)
        if record is None or digest in self._refused:
            raise _wrong_key()
        task = self._pending.get(digest)
        if task is None:
            if len(self._pending) >= _MAX_PENDING_HASHES:
                raise OverloadedError(
                    f"{_MAX_PENDING_HASHES} keys wait for their first check; try again in a moment", retry_after_s=2.0
                )
            task = asyncio.get_running_loop().create_task(self._hash(record, secret, digest))
            self._pending[digest] = task
            task.add_done_callback(lambda _: self._pending.pop(digest, None))
        # Shielded: one client that leaves must not undo the check for the others.
        checked = await asyncio.shield(task)
        if checked is None:
            raise _wrong_key()
        return self._verified.get(digest) or _Verified(digest, checked)

    def _reread(self) -> asyncio.Task[None] | None:
        """A look at the file, begun now or under way already; None if there were too many of late."""
        now_s = self._now_s()
        if self._rereads.wait_s(_REREAD_COST_S, _REREAD_BURST_S, now_s) > 0.0:
            return None
        if self._refreshing is not None:
            return self._refreshing
        self._rereads.take(_REREAD_COST_S, now_s)
        return self._start_refresh()

    def _plausible(self, key_id: bytes, secret: bytes) -> KeyRecord | None:
        """The key's record if its hint fits and it is neither revoked nor expired."""
        record = self._records.get(key_id, _NOBODY)
        fits = hmac.compare_digest(hint_of(secret), record.hint)
        valid = record.is_valid(self._wall_s())
        return record if fits and valid and record is not _NOBODY else None

    async def _hash(self, record: KeyRecord, secret: bytes, digest: bytes) -> KeyRecord | None:
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._hasher, self._verify, secret, record.hash)
        current = self._records.get(record.id.encode())  # it may have been revoked meanwhile
        if not right or current is None or not current.is_valid(self._wall_s()):
            self._refused[digest] = None
            if len(self._refused) > self._config.max_cached_keys:
                self._refused.popitem(last=False)
            return None
        self._verified[digest] = _Verified(digest, current)
        if len(self._verified) > self._config.max_cached_keys:
            self._verified.popitem(last=False)
        return current


def _has_small_body(headers: Mapping[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"")
    return length.isdigit() and len(length) <= 10 and int(length) <= _SMALL_BODY


def _key_text(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key as sent; None without one, or with one that is too long to be ours."""
    value = headers.get(b"authorization")
    if value is not None:
        if value[:7] != b"Bearer " and value[:7].lower() != b"bearer ":
            return None
        value = value[7:]
    else:
        value = headers.get(b"x-api-key")
        if value is None:
            return None
    value = value.strip()
    return value if 0 < len(value) <= _MAX_KEY_BYTES else None


def _no_key() -> UnauthorizedError:
    return UnauthorizedError("no API key was sent; add the header `Authorization: Bearer KEY`")


def _wrong_key() -> UnauthorizedError:
    return UnauthorizedError(
        "the API key is not valid; use one made by `foveal keys create` that is not revoked or expired"
    )
