"""SIGTERM under load cuts no stream; reloads under load cost no request an error.

python benchmarks/acceptance/gateway_04_drain_and_reload.py --seconds 20

"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
from harness.gateway import PacedBackend, counters, paced_backends, running_gateway
from harness.record import write_result
from harness.traffic import Ended, ask, open_loop, open_session, tally
from rich.console import Console

SLOTS = 16
SERVICE_MS = 400.0


def config(backends: list[PacedBackend], max_in_flight: int = SLOTS) -> dict[str, Any]:
    entries = [{"url": one.url, "id": one.name, "max_in_flight": max_in_flight} for one in backends]
    return {
        "models": {"paced": {"backends": entries, "routing": {"policy": "least_loaded"}}},
        "cache": {"enabled": False},
        "logging": {"access": False},
    }


async def _load(url: str, rate: float, seconds: float) -> list[Ended]:
    async with open_session(url) as session:

        async def request(label: str) -> Ended:
            body = {"model": "paced", "messages": [{"role": "user", "content": "hi"}], "stream": label == "stream"}
            return await ask(session, body, None, label)

        return await open_loop(request, {"stream": 0.75 * rate, "whole": 0.25 * rate}, seconds)


async def drain(seconds: float, rate: float) -> dict[str, Any]:
    with paced_backends(2, SLOTS, SERVICE_MS) as backends, running_gateway(config(backends)) as gateway:
        loading = asyncio.create_task(_load(gateway.url, rate, seconds))
        await asyncio.sleep(seconds / 2)
        gateway.server.process.send_signal(signal.SIGTERM)
        told_s = time.monotonic()
        status = await asyncio.to_thread(gateway.server.process.wait, 60)
        took_s = time.monotonic() - told_s
        ended = await loading
        left = sum(backend.events()["left"] for backend in backends)
    before = [one for one in ended if one.at_s - one.seconds < told_s - 0.05]
    cut = [one for one in ended if one.kind == "broken" and (one.status or one.first_byte_s is not None)]
    return {
        "requests": len(ended),
        "begun before SIGTERM": {"all": len(before), "ended": tally(before)},
        "ended": tally(ended),
        "streams cut": len(cut),
        "requests that backends saw vanish": left,
        "exit status": status,
        "seconds to the end": round(took_s, 2),
        "passed": not cut and not left and status == 0 and all(one.kind == "success" for one in before),
    }


async def reload(seconds: float, rate: float) -> dict[str, Any]:
    with paced_backends(3, SLOTS, SERVICE_MS) as backends, running_gateway(config(backends)) as gateway:
        loading = asyncio.create_task(_load(gateway.url, rate, seconds))
        choices = [backends[:2], backends[1:], backends, backends[::2]]
        reloads = 0
        while not loading.done():
            chosen = choices[reloads % len(choices)]
            await asyncio.to_thread(gateway.rewrite, config(chosen, SLOTS + reloads % 3))
            reloads += 1
            await asyncio.sleep(0.4)
        ended = await loading
        served = {backend.name: backend.events()["end"] for backend in backends}
        left = sum(backend.events()["left"] for backend in backends)
        counted = sum(counters(gateway, "foveal_gateway_config_reloads_total", ["result"]).get(("ok",), 0) for _ in "1")
    return {
        "requests": len(ended),
        "reloads": reloads,
        "reloads counted": counted,
        "ended": tally(ended),
        "served by backend": served,
        "requests that backends saw vanish": left,
        "passed": all(one.kind == "success" for one in ended)
        and not left
        and counted == reloads
        and all(served.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="Length of each load.")
    parser.add_argument("--rate", type=float, default=40.0, help="Requests per second.")
    options = parser.parse_args()
    results = {
        "drain": asyncio.run(drain(options.seconds, options.rate)),
        "reload": asyncio.run(reload(options.seconds, options.rate)),
    }
    Console(width=140).print(results)
    print("written to", write_result("acceptance_gateway_04_drain_and_reload", results))
    if not all(result["passed"] for result in results.values()):
        raise SystemExit("something was cut off")


if __name__ == "__main__":
    main()
