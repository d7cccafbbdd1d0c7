"""Overload at three times the capacity with mixed priorities: P0 keeps its promise, P2 is shed first, nothing is lost.

python benchmarks/acceptance/gateway_02_overload.py --seconds 30
python benchmarks/acceptance/gateway_02_overload.py --seconds 30 --model .demo/foveal-demo   # and our engine

Queue wait is what the gateway and the backend say of themselves in Server-Timing: `queue` plus `backend-queue`. P0
takes 30 % of the capacity, P1 and P2 the rest of three times the capacity. Before it comes normal traffic of all
classes, at 65 % of the capacity. Capacity is measured first: as many clients
as slots, each sending the next request when the last one has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
import psutil
from harness.gateway import GatewayProcess, counters, paced_backends, running_gateway
from harness.record import write_result
from harness.server import running_server
from harness.traffic import Ended, ask, closed_loop, open_loop, open_session, quantile, tally
from rich.console import Console
from rich.table import Table

P0_SHARE = 0.3
OVERLOAD = 3.0
WAIT_MS = 100.0


def config(backends: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {
        "models": {name: {"backends": backends, "routing": {"policy": "least_loaded"}}},
        "anonymous": {"best_priority": "P0"},
        "deadlines_s": {"p0": 1.0, "p1": 4.0, "p2": 4.0},
        "cache": {"enabled": False},
        "logging": {"access": False},
    }


@contextlib.contextmanager
def mock(slots: int, service_ms: float) -> Iterator[tuple[GatewayProcess, str, int]]:
    with paced_backends(2, slots, service_ms) as backends:
        entries = [{"url": one.url, "id": one.name, "max_in_flight": slots} for one in backends]
        with running_gateway(config(entries, "paced")) as gateway:
            yield gateway, "paced", 2 * slots


@contextlib.contextmanager
def engine(model: str, quantize: str, slots: int) -> Iterator[tuple[GatewayProcess, str, int]]:
    """P0 goes above `max_in_flight`: the engine has room in its batch, so that a P0 request waits for no slot."""
    with running_server(
        *(model, "--served-model-name", "vlm", "--threads", "1", "--max-num-seqs", str(2 * slots)),
        *("--quantize", quantize),
    ) as server:
        entry = {"url": server.url, "id": "engine", "max_in_flight": slots, "urgent_slots": max(1, slots // 2)}
        with running_gateway(config([entry], "vlm")) as gateway:
            yield gateway, "vlm", slots


async def overload(gateway: GatewayProcess, model: str, slots: int, seconds: float, tokens: int) -> dict[str, Any]:
    async with open_session(gateway.url) as session:
        number = iter(range(1 << 30))

        async def request(label: str) -> Ended:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": f"Question {next(number)}."}],
                "stream": next(number) % 4 == 0,
                "max_tokens": tokens,
                "ignore_eos": True,
            }
            return await ask(session, body, {"X-Priority": label}, label)

        await closed_loop(lambda: request("P1"), slots, min(3.0, seconds / 4))  # warm
        calm = await closed_loop(lambda: request("P1"), slots, max(4.0, seconds / 4))
        capacity = sum(one.kind == "success" for one in calm) / max(4.0, seconds / 4)
        normal = {"P0": 0.5 * P0_SHARE * capacity, "P1": 0.3 * capacity, "P2": 0.2 * capacity}
        calm_s = max(6.0, seconds / 4)
        before = asyncio.create_task(open_loop(request, normal, calm_s, seed=2))
        await asyncio.sleep(calm_s)  # the overload begins while the last of these are under way
        rates = {"P0": P0_SHARE * capacity, "P1": 0.9 * capacity, "P2": (OVERLOAD - P0_SHARE - 0.9) * capacity}
        began = sum(counters(gateway, "foveal_gateway_requests_received_total").values())
        memory = PeakMemory(gateway.pid)
        watching = asyncio.create_task(memory.watch())
        started = time.monotonic()
        ended = await open_loop(request, rates, seconds)
        watching.cancel()
        await before
    served = [one for one in ended if one.kind == "success"]
    waits = {
        label: [
            one.timing_ms.get("queue", 0.0) + one.timing_ms.get("backend-queue", 0.0)
            for one in served
            if one.label == label
        ]
        for label in rates
    }
    offered = {label: sum(one.label == label for one in ended) for label in rates}
    in_time = sum(wait <= WAIT_MS for wait in waits["P0"]) / max(1, offered["P0"])
    told = [one.retry_after_s for one in ended if one.retry_after_s]
    # From the second second on: before it the first answers are still being made.
    goodput = sum(started + 1 < one.at_s <= started + seconds for one in served) / (seconds - 1)
    received = counters(gateway, "foveal_gateway_requests_received_total")
    return {
        "capacity_per_s": round(capacity, 2),
        "offered_per_s": {label: round(rate, 2) for label, rate in rates.items()},
        "offered": offered,
        "ended": tally(ended),
        "served": {label: sum(one.label == label for one in served) for label in rates},
        "shed": {label: sum(one.label == label and one.kind == "error" for one in ended) for label in rates},
        "p0_within_100_ms": round(in_time, 4),
        "wait_ms": {
            label: {"p50": round(quantile(values, 0.5), 1), "p99": round(quantile(values, 0.99), 1)}
            for label, values in waits.items()
        },
        "goodput_over_capacity": round(goodput / capacity, 3) if capacity else 0.0,
        "refusals without Retry-After": sum(one.kind == "error" and not one.retry_after_s for one in ended),
        "retry_after_s": {
            "least": min(told, default=0.0),
            "median": quantile(told, 0.5),
            "most": max(told, default=0.0),
        },
        "gateway_rss_mib": {"before": memory.before >> 20, "peak": memory.peak >> 20},
        "received": sum(received.values()) - began,
    }


class PeakMemory:
    """Resident bytes of a process, looked at five times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self.peak = self._process.memory_info().rss

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            await asyncio.sleep(0.2)


def verdicts(figures: dict[str, Any]) -> dict[str, bool]:
    shed, offered = figures["shed"], figures["offered"]
    share = {label: shed[label] / max(1, offered[label]) for label in shed}
    return {
        "P0 within 100 ms for 99 %": figures["p0_within_100_ms"] >= 0.99,
        "P2 shed first": share["P2"] > share["P1"] >= share["P0"],
        "goodput at least 90 % of capacity": figures["goodput_over_capacity"] >= 0.9,
        "every request ended explicitly": not any(kind.startswith("broken") for kind in figures["ended"]),
        "every refusal says when to come back": figures["refusals without Retry-After"] == 0,
        "the gateway saw every request": figures["received"] == sum(offered.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="Length of each overload.")
    parser.add_argument("--slots", type=int, default=16, help="Requests at once per backend.")
    parser.add_argument("--service-ms", type=float, default=400.0, help="Of the mock, per request.")
    parser.add_argument("--model", help="Also with our engine serving this directory.")
    parser.add_argument("--quantize", default="int8", help="Of the engine.")
    parser.add_argument("--tokens", type=int, default=16, help="Tokens per answer of the engine.")
    options = parser.parse_args()
    console = Console(width=140)
    results: dict[str, Any] = {}
    with mock(options.slots, options.service_ms) as (gateway, model, slots):
        results["mock"] = asyncio.run(overload(gateway, model, slots, options.seconds, 8))
    if options.model:
        with engine(options.model, options.quantize, options.slots) as (gateway, model, slots):
            results["engine"] = asyncio.run(overload(gateway, model, slots, options.seconds, options.tokens))
    failed = False
    for name, figures in results.items():
        figures["passed"] = verdicts(figures)
        failed = failed or not all(figures["passed"].values())
        console.print(_table(name, figures))
        console.print({key: value for key, value in figures.items() if key != "passed"})
    print("written to", write_result("acceptance_gateway_02_overload", results))
    if failed:
        raise SystemExit("some promises were not kept")


def _table(name: str, figures: dict[str, Any]) -> Table:
    table = Table(title=f"overload, {name}", title_justify="left")
    for column in ("class", "offered/s", "offered", "served", "shed", "wait p50 ms", "wait p99 ms"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for label, rate in figures["offered_per_s"].items():
        wait = figures["wait_ms"][label]
        table.add_row(
            label,
            f"{rate:.1f}",
            *(str(figures[key][label]) for key in ("offered", "served", "shed")),
            f"{wait['p50']:.1f}",
            f"{wait['p99']:.1f}",
        )
    for text, passed in figures["passed"].items():
        table.add_row(f"[green]PASS[/] {text}" if passed else f"[red]FAIL[/] {text}")
    return table


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    main()
