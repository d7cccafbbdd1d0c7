"""Tenants stay apart, wrong keys tell nothing by their time, and no input brings the gateway down.

python benchmarks/acceptance/gateway_07_isolation.py

Tests: tenants and the cache, salts, keys, schemathesis on the served document, header and body fuzzing, the SSRF
matrix. Then the time of a 401 is measured for each kind of wrong key, interleaved, against a running gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness_path
import yaml
from harness.gateway import paced_backends, running_gateway
from harness.record import write_result
from harness.traffic import ask, open_session, quantile
from rich.console import Console

TESTS = [
    "tests/integration/gateway/test_shared_answers.py",
    "tests/integration/gateway/test_gateway_openapi_fuzz.py",
    "tests/integration/gateway/test_wire.py",
    "tests/unit/gateway/tenancy",
    "tests/unit/gateway/caching",
    "tests/unit/gateway/request",
    "tests/unit/gateway/wire",
]


def run_tests(tests: list[str]) -> dict[str, Any]:
    there = [test for test in tests if (harness_path.ROOT / test).exists()]
    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *there],
        cwd=harness_path.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(run.stdout[-3000:])
    return {
        "tests": there,
        "summary": run.stdout.strip().splitlines()[-1],
        "seconds": round(time.perf_counter() - began, 1),
        "passed": run.returncode == 0 and there == tests,
    }


def _foveal(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "foveal.cli.app", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    return run.stdout


def _keys(config: Path) -> dict[str, str]:
    """The right key, and one of each kind of wrong."""
    create = ("keys", "create", str(config), "--tenant", "a", "--json")
    right, revoked = json.loads(_foveal(*create))["key"], json.loads(_foveal(*create))
    _foveal("keys", "revoke", str(config), revoked["id"])
    prefix, key_id, secret = right.split("_", 2)
    return {
        "right": right,
        "last character wrong": right[:-1] + _other(right[-1]),
        "first secret character wrong": f"{prefix}_{key_id}_{_other(secret[0])}{secret[1:]}",
        "unknown id": f"{prefix}_{key_id[:-1]}{_other(key_id[-1])}_{secret}",
        "revoked": revoked["key"],
        "no key of ours": "sk-" + "0" * (len(right) - 3),
    }


def _other(character: str) -> str:
    return "a" if character != "a" else "b"


async def key_times(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, paced_backends(1, 8, 1.0) as backends:
        settings = {
            "models": {"paced": {"backends": [backends[0].url]}},
            "tenants": {"a": {}},
            "state": str(Path(folder) / "gateway.db"),
            "logging": {"access": False},
        }
        file = Path(folder) / "keys.yaml"
        file.write_text(yaml.safe_dump(settings))
        keys = _keys(file)
        with running_gateway(settings) as gateway:
            times: dict[str, list[float]] = {name: [] for name in keys}
            statuses: dict[str, set[int]] = {name: set() for name in keys}
            async with open_session(gateway.url) as session:
                body = {"model": "paced", "messages": [{"role": "user", "content": "hi"}]}
                await ask(session, body, {"Authorization": f"Bearer {keys['right']}"})
                chance = random.Random(1)
                for _ in range(rounds):
                    for name in chance.sample(list(keys), len(keys)):
                        ended = await ask(session, body, {"Authorization": f"Bearer {keys[name]}"})
                        times[name].append(ended.seconds * 1e3)
                        statuses[name].add(ended.status)
    # The quickest tenth: the rest is what else the machine did.
    wrong = {name: quantile(values, 0.1) for name, values in times.items() if name != "right"}
    spread_ms = max(wrong.values()) - min(wrong.values())
    return {
        "statuses": {name: sorted(found) for name, found in statuses.items()},
        "median_ms": {name: round(quantile(values, 0.5), 3) for name, values in times.items()},
        "p10_ms": {name: round(quantile(values, 0.1), 3) for name, values in times.items()},
        "p95_ms": {name: round(quantile(values, 0.95), 3) for name, values in times.items()},
        "spread of the quickest tenth of wrong keys, ms": round(spread_ms, 3),
        "passed": statuses["right"] == {200}
        and all(found == {401} for name, found in statuses.items() if name != "right")
        and spread_ms < 0.25,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="Requests with each kind of key.")
    parser.add_argument("--no-tests", action="store_true", help="Only the times.")
    options = parser.parse_args()
    results: dict[str, Any] = {"keys": asyncio.run(key_times(options.rounds))}
    if not options.no_tests:
        results["tests"] = run_tests(TESTS)
    Console(width=140).print(results)
    print("written to", write_result("acceptance_gateway_07_isolation", results))
    if not all(result["passed"] for result in results.values()):
        raise SystemExit("not isolated")


if __name__ == "__main__":
    main()
