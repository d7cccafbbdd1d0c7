"""The served API over the real engine, all processes included: the same contract as over the fake one, and a long drain.

FOVEAL_TEST_MODEL=DIR runs it on a checkpoint of yours instead of a tiny random one.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
from harness.server import Server, running_server

from support.openai_contract import OpenAIClientContract, Served
from support.tiny_models import tiny_checkpoint

FLAGS = ("--threads", "1", "--preprocess-workers", "1", "--num-kv-blocks", "1000", "--log-level", "warning")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    model = os.environ.get("FOVEAL_TEST_MODEL") or str(tiny_checkpoint("llava"))
    with running_server(model, "--served-model-name", "tiny", *FLAGS) as running:
        yield running


class TestRealEngine(OpenAIClientContract):
    @pytest.fixture
    async def served(self, server: Server) -> AsyncIterator[Served]:
        yield Served(f"{server.url}/v1", "tiny")


def test_sigterm_lets_running_streams_finish_and_exits_with_zero() -> None:
    with running_server(str(tiny_checkpoint("llama")), "--served-model-name", "tiny", *FLAGS) as server:
        body = {"model": "tiny", "prompt": "count", "max_tokens": 400, "ignore_eos": True, "stream": True}
        answers: list[list[bytes]] = [[] for _ in range(4)]
        begun = threading.Barrier(5)

        def read(lines: list[bytes]) -> None:
            request = urllib.request.Request(
                f"{server.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as reply:
                lines.append(reply.readline())
                begun.wait()
                lines += reply.readlines()

        readers = [threading.Thread(target=read, args=(lines,)) for lines in answers]
        for reader in readers:
            reader.start()
        begun.wait()  # all four streams are running
        server.process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join()
        for lines in answers:
            assert lines[-2:] == [b"data: [DONE]\n", b"\n"]
            assert not any(b'"error"' in line for line in lines)
        assert server.process.wait(60) == 0
