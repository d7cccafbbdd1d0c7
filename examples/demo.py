"""The demo: assemble the demo VLM if needed, serve it, and ask three questions about the pictures beside this file.

python examples/demo.py --model .demo/foveal-demo
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console

IMAGES = Path(__file__).parent / "images"
QUESTIONS = json.loads((IMAGES / "questions.json").read_text())
START_TIMEOUT_S = 300.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server stopped with code {process.returncode}; see its log above")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=5) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server was not ready after {START_TIMEOUT_S:.0f} s")


def ask(url: str, picture: Path, question: str) -> tuple[str, dict[str, Any], float, float]:
    """Answer, usage, seconds to the first token and in all. A plain OpenAI request: any client would do."""
    picture_url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    body = {
        "model": "foveal-demo",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": picture_url}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        "max_tokens": 64,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer, usage, first_s = "", {}, 0.0
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as reply:
        for line in reply:
            data = line.decode().removeprefix("data: ").strip()
            if not data or data == "[DONE]":
                continue
            event = json.loads(data)
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text = choice["delta"].get("content") or ""
                if text and not first_s:
                    first_s = time.perf_counter() - started
                answer += text
    return answer, usage, first_s, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".demo/foveal-demo", help="where the demo VLM is, or will be")
    parser.add_argument("--keep-serving", action="store_true", help="leave the server running until Ctrl-C")
    options = parser.parse_args()
    console = Console()
    foveal = [sys.executable, "-m", "foveal.cli.app"]

    subprocess.run([*foveal, "demo-model", options.model], check=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with console.status(f"Starting the server on {url}"):
        server = subprocess.Popen(
            [
                *foveal,
                "serve",
                options.model,
                "--port",
                str(port),
                "--served-model-name",
                "foveal-demo",
                "--log-level",
                "warning",
            ]
        )
        try:
            wait_until_ready(url, server)
        except BaseException:
            server.terminate()
            raise
    try:
        for item in QUESTIONS:
            answer, usage, first_s, total_s = ask(url, IMAGES / item["image"], item["question"])
            tokens = usage.get("completion_tokens", 0)
            rate = f"{(tokens - 1) / (total_s - first_s):.0f} tok/s" if tokens > 1 and total_s > first_s else ""
            console.print(f"[bold]{item['image']}[/]  {item['question']}", highlight=False)
            console.print(f"  [green]{answer.strip()}[/]", highlight=False)
            console.print(
                f"  [dim]TTFT {first_s * 1e3:.0f} ms {rate} ({usage.get('prompt_tokens')} prompt tokens)[/]\n",
                highlight=False,
            )
        if options.keep_serving:
            console.print(f"Serving on {url} until Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                server.wait()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    console.print(
        f"Next: [bold].venv/bin/foveal chat {options.model} --image examples/images/{QUESTIONS[0]['image']}[/]"
    )


if __name__ == "__main__":
    main()
