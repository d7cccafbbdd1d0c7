"""The main panels from a real run: a local Prometheus scrapes the gateway through calm, overload and failure.

    python benchmarks/acceptance/gateway_08_dashboards.py
    python benchmarks/acceptance/gateway_08_dashboards.py --model .demo/foveal-demo   # our engine's panels, too

Every panel is drawn from Prometheus's answer to the query that Grafana would send. Meanwhile `foveal diagnose` watches each
phase, and has to name what was provoked. The pictures go to docs/images/.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
from harness.gateway import PacedBackend, paced_backends, running_gateway
from harness.panel_picture import draw_dashboard
from harness.prometheus import running_prometheus
from harness.record import write_result
from harness.server import running_server
from harness.traffic import Ended, ask, open_loop, open_session, tally
from harness_path import ROOT
from PIL import Image

from foveal.observability.dashboards.engine_dashboard import ENGINE_DASHBOARD
from foveal.observability.dashboards.gateway_dashboard import GATEWAY_DASHBOARD

IMAGES = ROOT / "docs" / "images"
RULES = ROOT / "monitoring" / "alerts" / "foveal-alerts.yml"
SLOTS = 8
SERVICE_MS = 600.0
ROWS = ("What users feel", "Where the time goes", "Queue and admission", "Backends")
ENGINE_ROWS = ("Latency", "Load", "Memory and caches")


def config(backends: list[PacedBackend]) -> dict[str, Any]:
    entries = [{"url": one.url, "id": one.name, "max_in_flight": SLOTS, "urgent_slots": 2} for one in backends]
    return {
        "models": {"paced": {"backends": entries, "routing": {"policy": "least_loaded"}}},
        "anonymous": {"best_priority": "P0"},
        "deadlines_s": {"p0": 1.0, "p1": 6.0, "p2": 10.0},
        "cache": {"enabled": True},
        "logging": {"access": False},
        "health": {"interval_s": 1.0},
        "timeouts": {"first_byte_s": 5.0, "idle_s": 5.0},
    }


def pictures(count: int) -> list[str]:
    draw = random.Random(3)
    urls = []
    for _ in range(count):
        buffer = io.BytesIO()
        side = draw.choice([224, 336, 672])
        Image.effect_noise((side, side), 60).convert("RGB").save(buffer, "JPEG")
        urls.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    return urls


def body(model: str, label: str, number: int, urls: list[str]) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": f"Question {number}."}]
    if number % 3 == 0:
        content.append({"type": "image_url", "image_url": {"url": urls[number % len(urls)]}})
    request: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 16}
    request["stream"] = number % 4 != 0
    if number % 10 == 0:  # repeats that the response cache may answer
        return {**request, "temperature": 0, "messages": [{"role": "user", "content": f"Again {number // 10 % 5}."}]}
    return request if request["stream"] else {**request, "temperature": 0.7}


def start_diagnosis(url: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "foveal.cli.app", "diagnose", url, "--window-s", f"{seconds:g}", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_diagnosis(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=120)
    if process.returncode not in (0, 1):
        raise RuntimeError(errors)
    return {finding["code"]: finding for finding in json.loads(output)[0]["findings"]}


async def drive(url: str, backends: list[PacedBackend], seconds: float, alerts: Any) -> dict[str, Any]:
    capacity = len(backends) * SLOTS / (SERVICE_MS / 1000)
    urls = pictures(24)
    numbers = itertools.count()
    figures: dict[str, Any] = {}
    async with open_session(url) as session:

        async def request(label: str) -> Ended:
            return await ask(session, body("paced", label, next(numbers), urls), {"X-Priority": label}, label)

        async def phase(name: str, rates: dict[str, float]) -> None:
            began = time.time()
            watching = start_diagnosis(url, 0.8 * seconds)
            ended = await open_loop(request, {label: share * capacity for label, share in rates.items()}, seconds)
            found = await asyncio.to_thread(finish_diagnosis, watching)
            figures[name] = {"began": began, "ended": tally(ended), "alerts": alerts(), "diagnosis": found}

        calm = {"P0": 0.1, "P1": 0.3, "P2": 0.1}
        await phase("calm", calm)
        await phase("P2 floods", {"P0": 0.1, "P1": 0.3, "P2": 2.0})
        backends[0].kill()
        await phase("b0 killed", calm)
        backends[0].start()
        await asyncio.sleep(3.0)
        backends[1].freeze()
        await phase("b1 frozen", calm)
        backends[1].thaw()
        await phase("calm again", calm)
    return figures


def verdicts(figures: dict[str, Any], series: dict[str, int]) -> dict[str, bool]:
    ended = {kind for phase in figures.values() for kind in phase["ended"]}
    quiet = ("Over a tenant's limit", "Ejections", "Errors by code", "Errors and time-outs", "Attempts that failed")
    return {
        "every main panel shows what happened": all(count for title, count in series.items() if title not in quiet),
        "the flood of P2 is named": "queueing_by_p2" in figures["P2 floods"]["diagnosis"],
        "the killed backend is named": "b0" in json.dumps(figures["b0 killed"]["diagnosis"].get("backend_down", {})),
        "calm traffic has no problem": not any(
            finding["severity"] == "problem" for finding in figures["calm"]["diagnosis"].values()
        ),
        "BackendDown is pending or fires": "BackendDown" in figures["b0 killed"]["alerts"],
        "every request ended explicitly": not any(kind.startswith("broken") for kind in ended),
    }


def gateway_run(seconds: float) -> tuple[dict[str, Any], dict[str, int]]:
    with paced_backends(3, SLOTS, SERVICE_MS) as backends, running_gateway(config(backends)) as gateway:
        address = gateway.url.removeprefix("http://")
        with running_prometheus({"foveal-gateway": [address]}, RULES) as prometheus:
            time.sleep(3.0)
            start_s = time.time()
            figures = asyncio.run(drive(gateway.url, backends, seconds, prometheus.alerts))
            end_s = time.time()
            series = draw_dashboard(
                GATEWAY_DASHBOARD,
                ROWS,
                prometheus,
                start_s,
                end_s,
                {name: phase["began"] for name, phase in figures.items()},
                IMAGES / "gateway-dashboard.png",
                "Foveal gateway: three backends of 13 requests/s each; calm, a flood of P2, a killed and a frozen backend",
            )
    return figures, series


def engine_run(model: str, seconds: float) -> dict[str, int]:
    with (
        running_server(
            model, "--served-model-name", "vlm", "--max-num-seqs", "8", "--quantize", "int8", "--kv-dtype", "int8"
        ) as server,
        running_prometheus({"foveal-engine": [server.url.removeprefix("http://")]}) as prometheus,
    ):
        start_s = time.time()
        asyncio.run(load_engine(server.url, seconds))
        return draw_dashboard(
            ENGINE_DASHBOARD,
            ENGINE_ROWS,
            prometheus,
            start_s,
            time.time(),
            {},
            IMAGES / "engine-dashboard.png",
            "Foveal engine: the demo VLM in INT8, 1.5 requests a second, a third of them with a picture",
        )


async def load_engine(url: str, seconds: float) -> None:
    urls, numbers = pictures(8), itertools.count()
    async with open_session(url) as session:

        async def request(label: str) -> Ended:
            return await ask(session, body("vlm", label, next(numbers), urls), label=label)

        await open_loop(request, {"P1": 1.0, "P2": 0.5}, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=25.0, help="Length of each of the five phases.")
    parser.add_argument("--model", help="Also the panels of our engine serving this directory.")
    options = parser.parse_args()
    figures, series = gateway_run(options.seconds)
    results: dict[str, Any] = {"phases": figures, "series_per_panel": series}
    if options.model:
        results["series_per_engine_panel"] = engine_run(options.model, 2 * options.seconds)
    passed = results["passed"] = verdicts(figures, series)
    for text, good in passed.items():
        print("PASS" if good else "FAIL", text)
    for name, phase in figures.items():
        print(f"{name}: {phase['ended']}; alerts {phase['alerts']}; diagnosis {sorted(phase['diagnosis'])}")
    print("written to", write_result("acceptance_gateway_08_dashboards", results))
    if not all(passed.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    main()
