"""Repeated pictures on three engine replicas: by affinity each is encoded once, by turns once per replica.

python benchmarks/acceptance/gateway_05_affinity.py --model .demo/foveal-demo

Both policies get the same requests in the same order on engines that were started for them: every picture is asked
about several times, in random order, by a few clients. Figures: hits of the engines' feature caches (their own
counters) and the mean time to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import random
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
from harness.gateway import running_gateway
from harness.record import write_result
from harness.server import Server, running_server
from harness.traffic import Ended, ask, open_session, quantile
from PIL import Image, ImageDraw
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

QUESTIONS = ("What color is it?", "How many shapes are there?", "Describe the image.", "What is it?")


def picture(number: int, size: int) -> str:
    """A data URL; every number another picture."""
    chance = random.Random(number)
    image = Image.new("RGB", (size, size), tuple(chance.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = chance.randrange(size), chance.randrange(size)
        draw.ellipse((x, y, x + size // 4, y + size // 4), fill=tuple(chance.randrange(256) for _ in range(3)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def counter(server: Server, name: str) -> float:
    text = server.get("/metrics")[1].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


async def _ask_all(url: str, urls: list[str], order: list[int], clients: int) -> list[Ended]:
    todo = list(enumerate(order))[::-1]
    ended: list[Ended] = []
    async with open_session(url) as session:

        async def client() -> None:
            while todo:
                number, which = todo.pop()
                content = [
                    {"type": "text", "text": f"{number}. {QUESTIONS[number % len(QUESTIONS)]}"},
                    {"type": "image_url", "image_url": {"url": urls[which]}},
                ]
                body = {
                    "model": "vlm",
                    "messages": [{"role": "user", "content": content}],
                    "stream": True,
                    "max_tokens": 2,
                    "ignore_eos": True,
                }
                ended.append(await ask(session, body))

        await asyncio.gather(*[client() for _ in range(clients)])
    return ended


def measure(model: str, routing: Any, options: argparse.Namespace) -> dict[str, Any]:
    urls = [picture(number, options.size) for number in range(options.pictures)]
    order = [number for number in range(options.pictures) for _ in range(options.repeats)]
    random.Random(1).shuffle(order)
    flags = ["--served-model-name", "vlm", "--threads", "1", "--num-kv-blocks", "8192", "--preprocess-workers", "1"]
    # A prefix that holds the picture would answer for the feature cache, and for some of the requests only.
    flags += ["--no-enable-prefix-caching"]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running_server(model, *flags)) for _ in range(options.replicas)]
        entries = [{"url": server.url, "id": f"r{number}"} for number, server in enumerate(servers)]
        config = {
            "models": {"vlm": {"backends": entries, "routing": routing}},
            "health": {"slow_start_s": 0.1},
            "cache": {"enabled": False},
            "logging": {"access": False},
        }
        with running_gateway(config) as gateway:
            warm = asyncio.run(
                _ask_all(gateway.url, [picture(10_000 + k, options.size) for k in range(6)], list(range(6)), 1)
            )
            before = [
                (counter(s, "foveal_feature_cache_hits_total"), counter(s, "foveal_feature_cache_queries_total"))
                for s in servers
            ]
            ended = asyncio.run(_ask_all(gateway.url, urls, order, options.clients))
            after = [
                (counter(s, "foveal_feature_cache_hits_total"), counter(s, "foveal_feature_cache_queries_total"))
                for s in servers
            ]
    hits = sum(late[0] - early[0] for early, late in zip(before, after, strict=True))
    queries = sum(late[1] - early[1] for early, late in zip(before, after, strict=True))
    firsts = [one.first_byte_s for one in ended if one.kind == "success" and one.first_byte_s is not None]
    return {
        "requests": len(ended),
        "successes": len(firsts),
        "warm": sum(one.kind == "success" for one in warm),
        "feature cache hits": hits,
        "feature cache queries": queries,
        "hit rate": round(hits / queries, 4) if queries else 0.0,
        "requests by replica": [late[1] - early[1] for early, late in zip(before, after, strict=True)],
        "ttft_s": {"mean": round(sum(firsts) / len(firsts), 4), "p50": round(quantile(firsts, 0.5), 4)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3, help="Times each picture is asked about.")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--size", type=int, default=512, help="Pixels of each side.")
    options = parser.parse_args()
    console = Console(width=120)
    results: dict[str, Any] = {}
    for name, routing in (
        ("round_robin", {"policy": "round_robin"}),
        ("affinity", {"policy": "affinity", "affinity_keys": ["image"]}),
    ):
        results[name] = measure(options.model, routing, options)
        console.print(name, results[name])
    ratio = results["affinity"]["hit rate"] / max(1e-9, results["round_robin"]["hit rate"])
    results["hit rate ratio"] = round(ratio, 2)
    results["ttft ratio"] = round(results["affinity"]["ttft_s"]["mean"] / results["round_robin"]["ttft_s"]["mean"], 3)
    results["passed"] = ratio >= 2.0 and all(
        results[one]["successes"] == results[one]["requests"] for one in ("round_robin", "affinity")
    )
    table = Table(
        title=f"{options.pictures} pictures, {options.repeats} times each, {options.replicas} replicas",
        title_justify="left",
    )
    for column in ("policy", "hit rate", "mean TTFT s", "p50 TTFT s", "by replica"):
        table.add_column(column)
    for name in ("round_robin", "affinity"):
        row = results[name]
        table.add_row(
            name,
            f"{row['hit rate']:.3f}",
            *(f"{row['ttft_s'][key]:.3f}" for key in ("mean", "p50")),
            str(row["requests by replica"]),
        )
    console.print(table)
    print("written to", write_result("acceptance_gateway_05_affinity", results))
    if not results["passed"]:
        raise SystemExit(f"the hit rate is {ratio:.2f} times round robin's; 2 is wanted")


if __name__ == "__main__":
    main()
