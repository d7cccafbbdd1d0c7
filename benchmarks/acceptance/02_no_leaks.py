"""Nothing is left behind: a long random run of the scheduler, then 500 HTTP requests with random disconnects.

python benchmarks/acceptance/02_no_leaks.py --model .demo/foveal-demo
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from harness.record import write_result  # noqa: E402
from harness.server import Server, running_server  # noqa: E402

REQUESTS = 500
IN_PARALLEL = 24


def scheduler_steps() -> str:
    """The stateful property test with many more steps than CI takes."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "tests/unit/engine/scheduling"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FOVEAL_SCHEDULER_STEPS": "5000"},
    )
    if run.returncode:
        raise SystemExit(run.stdout)
    return run.stdout.strip().splitlines()[-1]


def picture(seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Visitor:
    """A client that leaves at a random point: before the headers, after some events, or at the end."""

    def __init__(self, session: aiohttp.ClientSession, server: Server, seed: int) -> None:
        self._session = session
        self._server = server
        self._random = random.Random(seed)

    async def visit(self) -> str:
        choose = self._random
        image = {"type": "image_url", "image_url": {"url": picture(choose.randrange(40))}}
        text = {"type": "text", "text": f"Say something about {choose.random()}"}
        body: dict[str, Any] = {
            "model": "foveal-demo",
            "messages": [{"role": "user", "content": [image] * choose.choice((0, 1, 1, 3)) + [text]}],
            "max_tokens": choose.randint(1, 40),
            "stream": choose.random() < 0.7,
            "n": choose.choice((1, 1, 2)),
            "ignore_eos": True,
        }
        leave_after_s = choose.choice((None, None, 0.0, choose.uniform(0, 0.3), choose.uniform(0, 2.0)))
        try:
            async with asyncio.timeout(leave_after_s):
                async with self._session.post(self._server.url + "/v1/chat/completions", json=body) as reply:
                    leave_after_events = choose.choice((0, 2, 10_000))
                    if body["stream"] and reply.status == 200:
                        async for _ in reply.content:
                            leave_after_events -= 1
                            if leave_after_events <= 0:
                                return "left mid-stream"
                    else:
                        await reply.read()
                    return f"answered {reply.status}"
        except TimeoutError:
            return "left early"


async def http_requests(server: Server, console: Console) -> dict[str, Any]:
    outcomes: dict[str, int] = {}
    gate = asyncio.Semaphore(IN_PARALLEL)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def one(seed: int) -> None:
            async with gate:
                outcome = await Visitor(session, server, seed).visit()
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

        tasks = [asyncio.create_task(one(seed)) for seed in range(REQUESTS)]
        for task in track(asyncio.as_completed(tasks), total=REQUESTS, description="requests", console=console):
            await task
    return outcomes


def gauges(server: Server) -> dict[str, float]:
    text = server.get("/metrics")[1].decode()
    found = {}
    for line in text.splitlines():
        match = re.match(r"(foveal[:_]\w+?)(?:\{[^}]*\})? ([-+.e\d]+)$", line)
        if match and re.search(r"requests_running|requests_waiting|kv_cache_usage|in_flight", match[1]):
            found[match[1]] = float(match[2])
    return found


def resources(server: Server) -> dict[str, int]:
    process = psutil.Process(server.process.pid)
    family = [process, *process.children(recursive=True)]
    segments = [p for d in Path("/dev/shm").glob(f"foveal-{process.pid}-*") for p in d.iterdir()]
    return {
        "processes": len(family),
        "file_descriptors": sum(p.num_fds() for p in family),
        "segments": len(segments),
        "rss_mib": sum(p.memory_info().rss for p in family) >> 20,
    }


def settle(server: Server) -> dict[str, float]:
    """Wait for the gauges to fall to zero: an abort travels behind the last disconnect."""
    deadline = time.monotonic() + 60
    while any((found := gauges(server)).values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    console = Console()
    steps = scheduler_steps()
    console.print(f"scheduler: {steps}")
    with running_server(options.model, "--served-model-name", "foveal-demo", "--max-num-seqs", "16") as server:
        asyncio.run(http_requests_of(server, 8))  # buffers and connections of a server that has worked before
        settle(server)
        before = resources(server)
        outcomes = asyncio.run(http_requests(server, console))
        left = settle(server)
        after = resources(server)
        alive = server.get("/ready")[0]
    console.print("outcomes", outcomes)
    console.print("gauges at idle", left)
    console.print("resources before", before, "after", after)
    path = write_result(
        "acceptance_02_no_leaks",
        {"scheduler": steps, "outcomes": outcomes, "idle_gauges": left, "before": before, "after": after},
    )
    console.print(f"written to {path}")
    problems = [name for name, value in left.items() if value]
    problems += [name for name in ("processes", "segments") if after[name] > before[name]]
    if after["file_descriptors"] > before["file_descriptors"] + 8:
        problems.append("file_descriptors")
    if not left or alive != 200 or problems:
        raise SystemExit(f"left behind: {problems or 'no gauges found'}")


async def http_requests_of(server: Server, count: int) -> None:
    async with aiohttp.ClientSession() as session:
        for seed in range(count):
            await Visitor(session, server, -seed - 1).visit()


if __name__ == "__main__":
    main()
