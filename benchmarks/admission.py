"""What knowing who asks, their limits and a look into the cache cost each request. One thread, its own processor time.

    python benchmarks/admission.py

The tenant has every limit there is and the state file is a real one. `wrong key` is what an attacker gets for a request.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.core.errors import UnauthorizedError
from foveal.core.vision_cost import VisionCost
from foveal.gateway.caching.cache_key import cache_key
from foveal.gateway.caching.determinism import cache_use
from foveal.gateway.caching.response_cache import ResponseCache
from foveal.gateway.config.load import parse_config
from foveal.gateway.pricing.price import Price
from foveal.gateway.request.read_view import read_view
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.tenancy import Tenancy

CONFIG = """
models: {m: ["http://127.0.0.1:1"]}
state: state.db
tenants:
  acme:
    limits: {requests_per_minute: 1_000_000_000, tokens_per_minute: 1_000_000_000_000, vision_ms_per_minute: 1e15,
             max_concurrent: 1000, tokens_per_day: 1_000_000_000_000_000, requests_per_day: 1_000_000_000}
"""
PRICE = Price(300, 200, 40.0, VisionCost(256, 30.0, 1 << 20))


async def measure(rounds: int, number: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        config = parse_config(CONFIG, directory=Path(directory))
        tenancy, cache = Tenancy(config), ResponseCache(config.cache)
        await tenancy.open()
        key = await tenancy.database.run(lambda connection: KeyStore(connection).create("acme", "", time.time()))
        right = {b"authorization": b"Bearer " + key.text.encode()}
        wrong = {b"authorization": b"Bearer fvl_" + key.record.id.encode() + b"_" + b"x" * 43}
        tenant = await tenancy.authenticate(right)
        body = bytearray(
            b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"%s"}]}' % (b"What is this? " * 20)
        )
        view = read_view(body, {}, "chat")
        stored = cache_key(view, body, tenant)
        cache.put(stored, tenant.id, b"x" * 500, b"application/json")
        large = body + bytes(4 << 20)

        async def refuse() -> None:
            try:
                await tenancy.authenticate(wrong)
            except UnauthorizedError:
                return
            raise AssertionError("a wrong key was let in")

        async def limit() -> None:
            reservation = tenancy.limiter.reserve(tenant, PRICE, time.monotonic())
            reservation.settle(280, 150)
            reservation.release()

        async def look_up() -> None:
            assert cache_use(view, right).read
            assert await cache.find(cache_key(view, body, tenant), tenant.id) is not None

        async def all_three() -> None:
            await tenancy.authenticate(right)
            await limit()
            await look_up()

        async def hash_large() -> None:
            cache_key(view, large, tenant)

        steps: dict[str, tuple[Callable[[], Awaitable[object]], int]] = {
            "known key": (lambda: tenancy.authenticate(right), number),
            "limits: reserve, settle, release": (limit, number),
            "cache: key and hit": (look_up, number),
            "all three": (all_three, number),
            "wrong key": (refuse, number),
            "cache key of a 4 MB body": (hash_large, 20),
        }
        samples: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, (step, count) in steps.items():
                begin = time.thread_time()
                for _ in range(count):
                    await step()
                samples[name].append((time.thread_time() - begin) / count * 1e6)
        await tenancy.close()
        return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--number", type=int, default=2000, help="repetitions in a round")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.rounds, arguments.number))
    for name, microseconds in found.items():
        print(f"{name:36}{microseconds:9.2f} us")
    print(
        write_result("admission", {"microseconds": found, "rounds": arguments.rounds, "repetitions": arguments.number})
    )


if __name__ == "__main__":
    main()
