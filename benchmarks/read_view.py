"""What reading a request costs the gateway, beside parsing it whole. One thread, its own processor time.

    python benchmarks/read_view.py

Every body is read once before it is timed, so that all lie in the same cache; the median of many rounds is kept. The views of
both ways are compared first: a reader that is fast and wrong is worth nothing.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.gateway.config.models import PricingConfig
from foveal.gateway.pricing.pricer import Pricer
from foveal.gateway.request.fingerprint import with_digests
from foveal.gateway.request.read_view import read_view

SIZES = {"text, 300 B": 0, "image, 650 KB": 487_000, "image, 4 MB": 3_000_000, "image, 16 MB": 12_000_000}


def body_of(file_bytes: int) -> bytearray:
    """A chat request; with a JPEG of 1,600 x 1,200 pixels, padded to `file_bytes`, unless that is 0."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is in this picture?"}]
    if file_bytes:
        out = io.BytesIO()
        Image.effect_noise((1600, 1200), 20).save(out, "JPEG", quality=30)
        data = out.getvalue()[:file_bytes]
        data += random.Random(0).randbytes(max(0, file_bytes - len(data)))
        url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": parts}]
    fields = {"model": "vlm", "messages": messages, "max_tokens": 128, "temperature": 0, "stream": True}
    return bytearray(json.dumps(fields).encode())


def median_us(call: Callable[[], object], seconds: float) -> float:
    samples = []
    started = time.thread_time()
    while time.thread_time() - started < seconds or len(samples) < 5:
        begin = time.thread_time_ns()
        call()
        samples.append((time.thread_time_ns() - begin) / 1e3)
    return statistics.median(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="processor time per cell (default: 1)")
    seconds: float = parser.parse_args().seconds
    pricer = Pricer({"vlm": PricingConfig(family="qwen2_5_vl")})
    whole = msgspec.json.Decoder()
    names = ("read_view", "price", "json.loads", "msgspec, whole body", "BLAKE3 of the image")
    table = Table("request", *(f"{name}, us" for name in names))
    rows: dict[str, dict[str, float]] = {}
    for name, size in SIZES.items():
        body = body_of(size)
        view = read_view(body, {}, "chat")
        parsed = json.loads(body)
        assert view.model == parsed["model"]
        assert len(view.images) == (1 if size else 0)
        assert not size or (view.images[0].width, view.images[0].height) == (1600, 1200)
        calls: tuple[Callable[[], object], ...] = (
            lambda body=body: read_view(body, {}, "chat"),
            lambda view=view: pricer.price(view),
            lambda body=body: json.loads(body),
            lambda body=body: whole.decode(body),
            lambda view=view, body=body: with_digests(view, body),
        )
        rows[name] = {label: median_us(call, seconds) for label, call in zip(names, calls, strict=True)}
        table.add_row(name, *(f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in rows[name].values()))
    Console().print(table)
    print(write_result("read_view", {"microseconds": rows, "seconds_per_cell": seconds}))


if __name__ == "__main__":
    main()
