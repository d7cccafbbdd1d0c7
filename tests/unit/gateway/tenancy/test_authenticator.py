"""Who gets in, and what a wrong key costs."""

from __future__ import annotations

import asyncio
import hmac
import sqlite3
from collections.abc import AsyncIterator

import pytest

from foveal.core.clock import ManualClock
from foveal.core.errors import OverloadedError, UnauthorizedError
from foveal.gateway.config.access import AuthConfig
from foveal.gateway.state.database import StateDatabase
from foveal.gateway.state.schema import MIGRATIONS
from foveal.gateway.tenancy import authenticator as module
from foveal.gateway.tenancy.admin_key import AdminKey
from foveal.gateway.tenancy.api_key import NewKey, hint_of
from foveal.gateway.tenancy.authenticator import Authenticator
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.slow_hash import verify_secret
from foveal.gateway.tenancy.tenant import Tenant

ACME, OTHER = Tenant("acme"), Tenant("other")


class SlowHash:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def __call__(self, secret: bytes, stored: str) -> bool:
        self.calls.append(secret)
        return verify_secret(secret, stored)


class Gate:
    """An authenticator with its file, clocks and a counted slow hash."""

    def __init__(self, **settings: float) -> None:
        self.database = StateDatabase(None, MIGRATIONS)
        self.clock = ManualClock()
        self.wall = ManualClock(1_000_000.0)
        self.hash = SlowHash()
        self.authenticator = Authenticator(
            self.database,
            {"acme": ACME, "other": OTHER},
            AuthConfig(**settings),  # type: ignore[arg-type]
            now_s=self.clock.now_s,
            wall_s=self.wall.now_s,
            verify=self.hash,
        )

    async def create(self, tenant: str = "acme", expires_at: float | None = None) -> NewKey:
        """In the file only, as another process would."""
        return await self.database.run(
            lambda connection: KeyStore(connection).create(tenant, "", 1.0, expires_at=expires_at, log2_n=4)
        )

    async def ask(self, text: str | bytes) -> Tenant:
        data = text.encode() if isinstance(text, str) else text
        return await self.authenticator.authenticate({b"authorization": b"Bearer " + data})

    async def refused(self, text: str | bytes) -> str:
        with pytest.raises(UnauthorizedError) as caught:
            await self.ask(text)
        return caught.value.message


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    gate.authenticator.close()
    gate.database.close()


def wrong_secret_with_the_right_hint(key: NewKey) -> str:
    """What an attacker who knows the id finds after some 65,536 tries."""
    number = 0
    while hint_of(b"guess%d" % number) != key.record.hint:
        number += 1
    return f"fvl_{key.record.id}_guess{number}"


async def test_a_key_names_its_tenant_and_costs_one_slow_hash_however_often_it_is_used(gate: Gate) -> None:
    mine, theirs = await gate.create("acme"), await gate.create("other")
    for _ in range(3):
        assert await gate.ask(mine.text) is ACME
        assert await gate.ask(theirs.text) is OTHER
    assert len(gate.hash.calls) == 2


async def test_the_key_may_come_in_either_header(gate: Gate) -> None:
    key = (await gate.create()).text.encode()
    for headers in ({b"authorization": b"bearer  " + key + b" "}, {b"x-api-key": key}):
        assert await gate.authenticator.authenticate(headers) is ACME


async def test_parallel_requests_with_a_new_key_share_one_slow_hash(gate: Gate) -> None:
    key = await gate.create()
    assert await asyncio.gather(*(gate.ask(key.text) for _ in range(50))) == [ACME] * 50
    assert len(gate.hash.calls) == 1


async def test_a_client_that_leaves_does_not_undo_the_check_for_the_others(gate: Gate) -> None:
    key = await gate.create()
    await gate.authenticator.refresh()
    first, second = asyncio.create_task(gate.ask(key.text)), asyncio.create_task(gate.ask(key.text))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is ACME
    assert len(gate.hash.calls) == 1


@pytest.mark.parametrize("text", ["", "fvl_", "fvl__", "x", "sk-123", "fvl_abcdef012345_secret", "é" * 20, "k" * 5000])
async def test_nonsense_is_refused_without_a_slow_hash(gate: Gate, text: str) -> None:
    await gate.create()
    await gate.refused(text)
    assert gate.hash.calls == []


async def test_wrong_secrets_of_a_known_key_cannot_burn_cpu(gate: Gate) -> None:
    key = await gate.create()
    for number in range(1000):
        await gate.refused(f"fvl_{key.record.id}_wrong{number}")
    # One in 65,536 gets past the hint.
    assert len(gate.hash.calls) <= 2


async def test_a_wrong_secret_that_passes_the_hint_costs_one_slow_hash_and_no_second_one(gate: Gate) -> None:
    guess = wrong_secret_with_the_right_hint(await gate.create())
    for _ in range(5):
        await gate.refused(guess)
    assert len(gate.hash.calls) == 1


async def test_the_list_of_refused_keys_is_bounded(gate: Gate) -> None:
    gate = Gate(max_cached_keys=2)
    key = await gate.create()
    await gate.authenticator.refresh()
    record = key.record
    for number in range(5):
        assert await gate.authenticator._hash(record, b"wrong", b"%d" % number) is None
    assert len(gate.authenticator._refused) == 2
    gate.authenticator.close()
    gate.database.close()


async def test_every_wrong_key_takes_the_same_comparisons_and_gets_the_same_words(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked, expired, good = await gate.create(), await gate.create(expires_at=5.0), await gate.create()
    await gate.database.run(lambda connection: KeyStore(connection).revoke(revoked.record.id, 2.0))
    await gate.authenticator.refresh()
    for _ in range(10):
        await gate.refused("nonsense")  # from here on the file is not read for each
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    seen = set()
    for text in ("nonsense", "fvl_000000000000_x", f"fvl_{good.record.id}_x", revoked.text, expired.text):
        compared.clear()
        seen.add((await gate.refused(text), tuple(compared)))
    assert len(seen) == 1
    assert seen.pop()[1] == ((2, 2),), "one comparison in constant time, of equal lengths"
    assert gate.hash.calls == []


async def test_a_key_made_by_another_process_works_at_once(gate: Gate) -> None:
    await gate.authenticator.refresh()
    await gate.refused("fvl_000000000000_x")
    key = await gate.create()
    assert await gate.ask(key.text) is ACME


async def test_a_flood_of_wrong_keys_reads_the_file_four_times_a_second_and_no_more(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = KeyStore.generation
    monkeypatch.setattr(KeyStore, "generation", lambda store: reads.append(1) or real(store))
    for _ in range(1000):
        await gate.refused("fvl_000000000000_x")
        gate.clock.advance(0.01)
    assert 40 <= len(reads) <= 44


async def test_a_revoked_key_is_refused_from_the_next_refresh_on(gate: Gate) -> None:
    key = await gate.create()
    assert await gate.ask(key.text) is ACME
    await gate.database.run(lambda connection: KeyStore(connection).revoke(key.record.id, 2.0))
    await gate.authenticator.refresh()
    await gate.refused(key.text)
    assert len(gate.hash.calls) == 1


async def test_a_key_revoked_while_it_is_being_checked_is_refused(gate: Gate) -> None:
    key = await gate.create()
    await gate.authenticator.refresh()
    record = key.record
    await gate.database.run(lambda connection: KeyStore(connection).revoke(record.id, 2.0))
    await gate.authenticator.refresh()
    _, secret = module.split_key(key.text.encode())
    assert await gate.authenticator._hash(record, secret, b"digest") is None


async def test_an_expired_key_stops_without_a_refresh(gate: Gate) -> None:
    key = await gate.create(expires_at=1_000_010.0)
    assert await gate.ask(key.text) is ACME
    gate.wall.advance(10.0)
    await gate.refused(key.text)


async def test_a_key_of_a_tenant_that_is_not_configured_is_refused_by_name_until_a_reload_brings_it(gate: Gate) -> None:
    key = await gate.create("newcomer")
    assert "newcomer, which is not configured" in await gate.refused(key.text)
    newcomer = Tenant("newcomer", weight=3.0)
    gate.authenticator.replace({"newcomer": newcomer}, AuthConfig())
    assert await gate.ask(key.text) is newcomer
    assert len(gate.hash.calls) == 1


async def test_an_unreadable_file_leaves_known_keys_working(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await gate.create()
    assert await gate.ask(key.text) is ACME

    def broken(_: KeyStore) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(KeyStore, "generation", broken)
    await gate.authenticator.refresh()
    assert await gate.ask(key.text) is ACME


async def test_too_many_new_keys_at_once_are_told_to_come_back(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PENDING_HASHES", 1)
    first, second = await gate.create(), await gate.create()
    await gate.authenticator.refresh()
    task = asyncio.create_task(gate.ask(first.text))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await gate.ask(second.text)
    assert await task is ACME
    assert await gate.ask(second.text) is ACME


def early(gate: Gate, text: str, length: bytes = b"67108864") -> UnauthorizedError | None:
    headers = {b"authorization": b"Bearer " + text.encode(), b"content-length": length}
    return gate.authenticator.refuse_early(headers)


async def test_the_look_before_the_body_lets_only_known_keys_pass(gate: Gate) -> None:
    used, unused = await gate.create(), await gate.create()
    await gate.ask(used.text)
    guess = wrong_secret_with_the_right_hint(unused)
    assert isinstance(gate.authenticator.refuse_early({}), UnauthorizedError)
    assert isinstance(early(gate, "fvl_000000000000_x"), UnauthorizedError)
    for text in (used.text, unused.text, guess):
        assert early(gate, text) is None
    await gate.refused(guess)
    assert isinstance(early(gate, guess), UnauthorizedError), "it is remembered as wrong"


async def test_a_key_made_a_moment_ago_may_send_a_small_body_at_once(gate: Gate) -> None:
    await gate.authenticator.refresh()
    key = await gate.create()
    assert early(gate, key.text, length=b"900") is None
    await gate.ask(key.text)


async def test_with_a_large_body_it_is_refused_once_and_passes_when_the_file_was_read(gate: Gate) -> None:
    await gate.authenticator.refresh()
    key = await gate.create()
    for length in (b"67108864", b"9" * 5000, b""):
        assert isinstance(early(gate, key.text, length), UnauthorizedError)
    await asyncio.sleep(0)  # the refusal began a look at the file,
    await gate.database.flush()  # which is over when this is
    await asyncio.sleep(0)
    assert early(gate, key.text) is None


async def test_a_flood_of_wrong_keys_that_never_send_their_body_reads_the_file_four_times_a_second(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = KeyStore.generation
    monkeypatch.setattr(KeyStore, "generation", lambda store: reads.append(1) or real(store))
    for _ in range(1000):
        assert isinstance(early(gate, "fvl_000000000000_x"), UnauthorizedError)
        await gate.database.flush()
        gate.clock.advance(0.01)
    assert 40 <= len(reads) <= 44


async def test_a_key_revoked_while_the_body_is_read_is_refused_after_it(gate: Gate) -> None:
    key = await gate.create()
    headers = {b"authorization": b"Bearer " + key.text.encode()}
    assert await gate.authenticator.authenticate(headers) is ACME
    assert gate.authenticator.refuse_early(headers) is None
    await gate.database.run(lambda connection: KeyStore(connection).revoke(key.record.id, 2.0))
    await gate.authenticator.refresh()
    with pytest.raises(UnauthorizedError):
        await gate.authenticator.authenticate(headers)


async def test_the_early_look_at_one_request_says_nothing_about_another(gate: Gate) -> None:
    mine, theirs = await gate.create("acme"), await gate.create("other")
    headers = [{b"x-api-key": key.text.encode()} for key in (mine, theirs)]
    for one in headers:
        await gate.authenticator.authenticate(one)
    for one in headers:
        assert gate.authenticator.refuse_early(one) is None
    assert [await gate.authenticator.authenticate(one) for one in headers] == [ACME, OTHER]


async def test_the_last_use_is_written_down(gate: Gate) -> None:
    key = await gate.create()
    await gate.ask(key.text)
    gate.authenticator.note_use()
    (record,) = await gate.database.run(lambda connection: KeyStore(connection).all())
    assert record.last_used_at == 1_000_000.0


def test_the_admin_key_opens_the_admin_api_and_nothing_else_does() -> None:
    key = AdminKey("correct horse battery")
    key.check({b"authorization": b"Bearer correct horse battery"})
    for headers in ({}, {b"authorization": b"Bearer x"}, {b"authorization": b"correct horse battery"}):
        with pytest.raises(UnauthorizedError, match="missing or wrong"):
            key.check(headers)
    with pytest.raises(UnauthorizedError, match="the admin API is off"):
        AdminKey(None).check({b"authorization": b"Bearer "})
