"""Memory and disk together."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from foveal.core.clock import ManualClock
from foveal.gateway.caching.response_cache import ResponseCache
from foveal.gateway.config.caches import CacheConfig

MIB = 1 << 20
KEY = b"k" * 32


async def opened(directory: Path, wall: ManualClock, **settings: float) -> ResponseCache:
    config = CacheConfig(**{"disk_bytes": MIB, "ttl_s": 100.0, "tenant_share": 1.0, **settings})  # type: ignore[arg-type]
    cache = ResponseCache(config, directory / "gateway.db", wall.now_s)
    await cache.open()
    return cache


def put(cache: ResponseCache, key: bytes = KEY, tenant: str = "a", body: bytes = b"{}") -> bool:
    return cache.put(key, tenant, body, b"application/json", prompt_tokens=3, output_tokens=4, origin=("m", "1", "b"))


async def test_an_answer_survives_a_restart_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    wall = ManualClock(1000.0)
    first = await opened(tmp_path, wall)
    put(first)
    kept = await first.find(KEY, "a")
    await first.close()
    second = await opened(tmp_path, wall)
    assert len(second.memory) == 0
    assert await second.find(KEY, "a") == kept
    assert len(second.memory) == 1, "from now on without the disk"
    assert await second.find(KEY, "b") is None
    await second.close()


async def test_another_tenant_s_answer_is_not_found_on_disk_either(tmp_path: Path) -> None:
    wall = ManualClock()
    first = await opened(tmp_path, wall)
    put(first)
    await first.close()
    second = await opened(tmp_path, wall)
    assert await second.find(KEY, "b") is None
    await second.close()


async def test_answers_grow_old_also_on_disk_and_while_the_gateway_is_down(tmp_path: Path) -> None:
    wall = ManualClock(1000.0)
    first = await opened(tmp_path, wall)
    put(first)
    wall.advance(99.0)
    assert await first.find(KEY, "a") is not None
    wall.advance(1.0)
    assert await first.find(KEY, "a") is None
    put(first, b"new")
    await first.close()
    wall.advance(50.0)
    second = await opened(tmp_path, wall)
    assert second.disk is not None
    assert len(second.disk) == 1
    assert await second.find(KEY, "a") is None
    assert await second.find(b"new", "a") is not None
    await second.close()


async def test_a_miss_asks_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = await opened(tmp_path, ManualClock())
    assert cache.disk is not None
    monkeypatch.setattr(cache.disk, "get", None)
    assert await cache.find(KEY, "a") is None
    await cache.close()


async def test_the_file_stays_within_its_budget_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    wall = ManualClock()
    cache = await opened(tmp_path, wall, memory_bytes=1, max_answer_bytes=MIB)
    assert cache.disk is not None
    for number in range(100):
        wall.advance(0.1)
        put(cache, b"%d" % number, body=b"x" * 50_000)
        assert await cache.find(b"0", "a") is not None
    await cache.disk.flush()
    assert cache.disk.num_bytes <= 1.1 * MIB
    assert await cache.find(b"1", "a") is None
    assert await cache.find(b"99", "a") is not None
    await cache.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2.5 * MIB


async def test_one_tenant_cannot_fill_the_file(tmp_path: Path) -> None:
    wall = ManualClock()
    cache = await opened(tmp_path, wall, memory_bytes=1, tenant_share=0.5)
    assert cache.disk is not None
    put(cache, b"quiet", "quiet", b"x" * 100_000)
    for number in range(60):
        wall.advance(0.1)
        put(cache, b"%d" % number, "loud", b"x" * 50_000)
    await cache.disk.flush()
    assert await cache.find(b"quiet", "quiet") is not None
    await cache.close()


async def test_what_the_budget_drops_from_the_disk_is_counted_and_remembered_no_more(tmp_path: Path) -> None:
    cache = await opened(tmp_path, ManualClock())
    assert cache.disk is not None
    for number in range(60):
        put(cache, b"%d" % number, body=b"x" * 50_000)
    await cache.disk.get(b"59", "a", 0.0)  # all that was put before is written by then
    assert cache.disk.num_bytes <= MIB
    assert not cache.disk.has(b"0")
    assert cache.disk.has(b"59")
    await cache.close()


async def test_a_cache_that_a_reload_turns_on_uses_the_disk_at_once(tmp_path: Path) -> None:
    cache = await opened(tmp_path, ManualClock(), enabled=False)
    cache.reload(CacheConfig(disk_bytes=MIB))
    assert cache.disk is not None
    put(cache)
    assert cache.disk.has(KEY)
    await cache.close()


async def test_a_damaged_file_is_replaced_and_never_an_error(tmp_path: Path) -> None:
    (tmp_path / "gateway-answers.db").write_bytes(b"garbage" * 1000)
    cache = await opened(tmp_path, ManualClock())
    put(cache)
    assert await cache.find(KEY, "a") is not None
    await cache.close()


async def test_a_disk_that_fails_is_a_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = ManualClock()
    first = await opened(tmp_path, wall)
    put(first)
    await first.close()
    second = await opened(tmp_path, wall)

    def broken(*_: object) -> None:
        raise sqlite3.DatabaseError("disk image is malformed")

    monkeypatch.setattr("foveal.gateway.caching.disk_cache._read", broken)
    assert await second.find(KEY, "a") is None
    assert await second.find(KEY, "a") is None
    await second.close()


async def test_what_is_too_large_or_switched_off_is_not_kept(tmp_path: Path) -> None:
    cache = await opened(tmp_path, ManualClock(), max_answer_bytes=10)
    assert not put(cache, body=b"x" * 11)
    assert put(cache, body=b"x" * 10)
    cache.reload(CacheConfig(enabled=False))
    assert not put(cache)
    assert await cache.find(b"other", "a") is None
    assert len(cache.memory) == 0
    await cache.close()


def test_without_a_disk_budget_no_file_is_made(tmp_path: Path) -> None:
    assert ResponseCache(CacheConfig(), tmp_path / "gateway.db").disk is None
    assert list(tmp_path.iterdir()) == []
