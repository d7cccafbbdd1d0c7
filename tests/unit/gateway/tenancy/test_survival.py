"""What must survive does: quotas, keys and feedback over a restart, and over a disk that fails."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from foveal.core.clock import ManualClock
from foveal.core.errors import OverloadedError, RateLimitedError, UnauthorizedError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.load import parse_config
from foveal.gateway.pricing.price import Price
from foveal.gateway.state.database import StateDatabase
from foveal.gateway.state.schema import MIGRATIONS
from foveal.gateway.tenancy.daily_usage import DailyUsage
from foveal.gateway.tenancy.feedback import AnswerOrigin, FeedbackStore
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.tenancy import Tenancy

NOON = 20_000 * 86_400.0 + 43_200
TEN = Price(10, 0, 1.0)


def config_of(directory: Path) -> GatewayConfig:
    return parse_config(
        "models: {m: [http://h:1]}\nstate: s.db\ntenants: {acme: {limits: {tokens_per_day: 100}}}\n"
        "admin: {key: 0123456789abcdef}",
        directory=directory,
        environment={},
    )


async def opened(directory: Path) -> Tenancy:
    tenancy = Tenancy(config_of(directory), now_s=ManualClock().now_s, wall_s=lambda: NOON)
    await tenancy.open()
    return tenancy


async def test_keys_quotas_and_feedback_survive_a_restart(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    key = await first.database.run(lambda connection: KeyStore(connection).create("acme", "", 1.0, log2_n=4))
    headers = {b"authorization": b"Bearer " + key.text.encode()}
    acme = await first.authenticate(headers)
    for _ in range(9):
        reservation = first.limiter.reserve(acme, TEN, 0.0)
        reservation.settle(10, 0)
        reservation.release()
    first.feedback.remember("acme", "r1", AnswerOrigin("m", "1", "h:1"))
    first.feedback.add("acme", "r1", -1.0, "wrong", NOON)
    await first.close()

    second = await opened(tmp_path)
    acme = await second.authenticate(headers)
    second.limiter.reserve(acme, TEN, 0.0)
    with pytest.raises(RateLimitedError, match="100 tokens were used today"):
        second.limiter.reserve(acme, TEN, 0.0)
    (kept,) = await second.feedback.latest()
    assert (kept.request_id, kept.score, kept.comment, kept.origin) == (
        "r1",
        -1.0,
        "wrong",
        AnswerOrigin("m", "1", "h:1"),
    )
    await second.close()


async def test_without_a_state_file_everybody_is_anonymous_and_nothing_is_written(tmp_path: Path) -> None:
    config = parse_config("models: {m: [http://h:1]}", directory=tmp_path)
    tenancy = Tenancy(config, wall_s=lambda: NOON)
    await tenancy.open()
    assert await tenancy.authenticate({}) is config.anonymous
    assert tenancy.refuse_early({}) is None
    await tenancy.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_reload_changes_tenants_and_the_admin_key_at_once(tmp_path: Path) -> None:
    tenancy = await opened(tmp_path)
    tenancy.admin.check({b"authorization": b"Bearer 0123456789abcdef"})
    with pytest.raises(UnauthorizedError):
        await tenancy.authenticate({})
    tenancy.reload(parse_config("models: {m: [http://h:1]}"))
    assert (await tenancy.authenticate({})).id == "anonymous"
    with pytest.raises(UnauthorizedError):
        tenancy.admin.check({b"authorization": b"Bearer 0123456789abcdef"})
    await tenancy.close()


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database or disk is full"), OverflowError("too large to convert to INTEGER")]
)
async def test_usage_that_cannot_be_written_is_kept_and_written_later(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    database = StateDatabase(None, MIGRATIONS)
    daily = DailyUsage(database, lambda: NOON)
    day = daily.today()
    add(daily, 1, 10)
    with monkeypatch.context() as patch:
        patch.setattr("foveal.gateway.tenancy.daily_usage._write", fail)
        await daily.flush()
        assert daily.used("a", day) == (1, 10)
        add(daily, 1, 5)
        await daily.flush()
    assert daily.used("a", day) == (2, 15)
    await daily.flush()
    other = DailyUsage(database, lambda: NOON)
    await other.flush()
    assert other.used("a", day) == (2, 15)
    database.close()


def add(daily: DailyUsage, requests: int, tokens: int) -> None:
    count = daily.count("a", daily.today())
    count.new_requests += requests
    count.new_tokens += tokens


async def test_feedback_that_cannot_be_recorded_is_not_said_to_be() -> None:
    database = StateDatabase(None, MIGRATIONS)
    store = FeedbackStore(database)
    database.close()
    with pytest.raises(OverloadedError):
        store.add("acme", "r1", 1.0, "", 1.0)


async def test_feedback_is_tied_to_who_got_the_answer_and_the_last_word_counts() -> None:
    database = StateDatabase(None, MIGRATIONS)
    store = FeedbackStore(database, max_remembered=2)
    origin = AnswerOrigin("m", "2", "b")
    store.remember("acme", "r1", origin)
    assert store.add("acme", "r1", 1.0, "", 1.0).origin == origin
    store.add("acme", "r1", -0.5, "after all not", 2.0)
    assert store.add("other", "r1", 1.0, "", 3.0).origin is None, "another tenant's request is not his to judge"
    assert [(found.tenant, found.score) for found in await store.latest()] == [("other", 1.0), ("acme", -0.5)]
    assert len(await store.latest(tenant="acme")) == 1
    with pytest.raises(ValueError, match="between -1"):
        store.add("acme", "r1", 7.0, "", 4.0)
    store.remember("acme", "r2", origin)
    store.remember("acme", "r3", origin)
    assert store.origin_of("acme", "r1") is None, "memory is bounded"
    database.close()
