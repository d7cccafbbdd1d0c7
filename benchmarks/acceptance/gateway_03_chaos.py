"""Chaos: backends are killed and frozen at random under load; every request ends in exactly one explicit way, and the
books agree.

python benchmarks/acceptance/gateway_03_chaos.py --seconds 600

First each failure alone, with its right outcome and in bounded time (the tests of tests/integration/gateway), then
`kill -9` of one of two backends under load, then the chaos run. Books: what clients saw, what the gateway counted by
outcome, its attempts at backends, and the lines that the backends left (written at once, so that a kill loses none).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
from harness.gateway import GatewayProcess, PacedBackend, counters, paced_backends, running_gateway
from harness.record import write_result
from harness.traffic import Ended, ask, open_loop, open_session, quantile, tally
from rich.console import Console

FIRST_BYTE_S = 2.0
SLOTS = 8
SERVICE_MS = 200.0


def config(backends: list[PacedBackend]) -> dict[str, Any]:
    return {
        "models": {
            "paced": {
                "backends": [{"url": one.url, "id": one.name, "max_in_flight": one.slots} for one in backends],
                "routing": {"policy": "least_loaded"},
            }
        },
        "timeouts": {"connect_s": 1.0, "first_byte_s": FIRST_BYTE_S, "idle_s": 2.0, "total_s": 20.0},
        "health": {"interval_s": 0.5, "timeout_s": 0.5, "slow_start_s": 2.0},
        "cache": {"enabled": False},
        "logging": {"access": False},
    }


async def _load(gateway: GatewayProcess, rate: float, seconds: float, seed: int) -> list[Ended]:
    chance = random.Random(seed)
    async with open_session(gateway.url) as session:

        async def request(label: str) -> Ended:
            body = {
                "model": "paced",
                "messages": [{"role": "user", "content": f"{chance.random()}"}],
                "stream": label == "stream",
            }
            return await ask(session, body, {"X-Priority": f"P{chance.randrange(1, 3)}"}, label)

        return await open_loop(request, {"stream": rate / 2, "whole": rate / 2}, seconds, seed)


async def killed_backend(seconds: float) -> dict[str, Any]:
    """One of two dies in the middle and comes back a while later. Half the load would fit on one."""
    with paced_backends(2, SLOTS, SERVICE_MS) as backends, running_gateway(config(backends)) as gateway:
        rate = 0.4 * 2 * SLOTS / (SERVICE_MS / 1e3)
        loading = asyncio.create_task(_load(gateway, rate, seconds, 1))
        await asyncio.sleep(seconds / 3)
        backends[0].kill()
        await asyncio.sleep(seconds / 3)
        begun = backends[0].events()["begin"]
        backends[0].start()
        ended = await loading
        back = backends[0].events()["begin"] - begun
    before_first = [one for one in ended if one.kind != "success" and one.first_byte_s is None]
    errors = [one for one in ended if one.kind != "success"]
    return {
        "requests": len(ended),
        "ended": tally(ended),
        "errors_before_the_first_byte": len([one for one in errors if one.status != 200]) + len(before_first),
        "streams_cut_after_it": len([one for one in errors if one.status == 200]),
        "broken": sum(one.kind == "broken" for one in ended),
        "served_by_it_after_restart": back,
        "passed": not [one for one in errors if one.status != 200]
        and all(one.kind != "broken" for one in ended)
        and back > 0,
    }


async def _torment(backends: list[PacedBackend], until_s: float, chance: random.Random, log: list[str]) -> None:
    """At most all but one of the backends are out at a time, now and then all of them."""
    while time.monotonic() < until_s - 6:
        await asyncio.sleep(chance.uniform(0.3, 2.0))
        victims = (
            list(backends) if chance.random() < 0.05 else chance.sample(backends, chance.randrange(1, len(backends)))
        )
        kinds = [chance.choice(("kill", "freeze")) for _ in victims]
        for victim, kind in zip(victims, kinds, strict=True):
            log.append(f"{kind} {victim.name}")
            victim.kill() if kind == "kill" else victim.freeze()
        await asyncio.sleep(chance.uniform(0.2, 3.0))
        for victim, kind in zip(victims, kinds, strict=True):
            victim.start() if kind == "kill" else victim.thaw()


async def chaos(seconds: float, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    torments: list[str] = []
    with paced_backends(3, SLOTS, SERVICE_MS) as backends, running_gateway(config(backends)) as gateway:
        rate = 0.5 * 3 * SLOTS / (SERVICE_MS / 1e3)
        loading = asyncio.create_task(_load(gateway, rate, seconds, seed))
        await _torment(backends, time.monotonic() + seconds, chance, torments)
        ended = await loading
        await asyncio.sleep(1.0)
        outcomes = {
            key[0]: value for key, value in counters(gateway, "foveal_gateway_requests_total", ["outcome"]).items()
        }
        received = sum(counters(gateway, "foveal_gateway_requests_received_total").values())
        attempts = {
            key[0]: value
            for key, value in counters(gateway, "foveal_gateway_backend_requests_total", ["result"]).items()
        }
        in_flight = sum(counters(gateway, "foveal_gateway_backend_in_flight").values())
        begun = Counter(name for backend in backends for name in backend.request_ids("begin"))
        answered = {name for backend in backends for name in backend.request_ids("end")}
        events: dict[str, int] = {}
        for backend in backends:
            for event, count in backend.events().items():
                events[event] = events.get(event, 0) + count
    seen = {kind: sum(one.kind == kind for one in ended) for kind in ("success", "error", "timeout", "broken")}
    told = {
        "success": outcomes.get("success", 0),
        "timeout": outcomes.get("timeout", 0),
        "error": sum(outcomes.get(name, 0) for name in ("error", "shed", "limited", "client_error")),
        "aborted": outcomes.get("aborted", 0),
    }
    mine = {one.headers.get("x-request-id", "") for one in ended}
    served = {one.headers["x-request-id"] for one in ended if one.kind == "success"}
    books = {
        "no request ended without a word": seen["broken"] == 0,
        "client and gateway agree on successes": seen["success"] == told["success"],
        "client and gateway agree on time-outs": seen["timeout"] == told["timeout"],
        "client and gateway agree on errors": seen["error"] == told["error"],
        "received = ended": received == sum(outcomes.values()) == len(ended),
        "every success was answered by a backend under its id": served <= answered,
        "backends saw only what clients sent": set(begun) <= mine,
        # Three attempts, each of which may meet a connection that was closed under it.
        "no request was sent more often than it may be": max(begun.values(), default=0) <= 2 * 3,
        "no slot is held at the end": in_flight == 0,
        "bounded time": max(one.seconds for one in ended) < 25.0,
    }
    return {
        "seconds": seconds,
        "requests": len(ended),
        "torments": {kind: sum(one.startswith(kind) for one in torments) for kind in ("kill", "freeze")},
        "client": tally(ended),
        "gateway": outcomes,
        "attempts": attempts,
        "backends": events,
        "success_share": round(seen["success"] / len(ended), 4),
        "latency_s": {
            "p50": round(quantile([one.seconds for one in ended], 0.5), 3),
            "max": round(max(one.seconds for one in ended), 3),
        },
        "answered, with no line in a log": [
            {"label": one.label, "begun": begun[one.headers["x-request-id"]], "timing": one.timing_ms}
            for one in ended
            if one.kind == "success" and one.headers["x-request-id"] not in answered
        ],
        "books": books,
        "passed": all(books.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="Length of the chaos run.")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console(width=140)
    results = {"killed backend": asyncio.run(killed_backend(min(30.0, options.seconds / 2)))}
    console.print(results)
    results["chaos"] = asyncio.run(chaos(options.seconds, options.seed))
    console.print(results["chaos"])
    print("written to", write_result("acceptance_gateway_03_chaos", results))
    if not all(result["passed"] for result in results.values()):
        raise SystemExit("the books do not agree")


if __name__ == "__main__":
    main()
