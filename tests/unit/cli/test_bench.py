"""foveal bench serve, from the command line to the table."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foveal.cli.bench import bench_app
from foveal.core.errors import ConfigurationError
from unit.evaluation.load.fake_server import FakeServer, serving


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server in a thread of its own: the command brings its own event loop."""
    fake = FakeServer()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(fake):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    yield fake
    loop.call_soon_threadsafe(stop.set)
    thread.join(5)
    loop.close()


def test_a_run_prints_a_table_and_writes_settings_and_results(server: FakeServer, tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    options = "--num-requests 4 --concurrency 2 --input-tokens 12 --output-tokens 3 --images random --image-size 8x8"
    sla = "--ttft-sla-ms 60000 --priority-mix P1=1"
    arguments = ["serve", server.url, *options.split(), *sla.split(), "--api-key", "secret", "--json", str(target)]
    result = CliRunner().invoke(bench_app, arguments)
    assert result.exit_code == 0, result.output
    assert "4 of 4 complete" in result.output
    assert "time to first token, P1" in result.output
    document = json.loads(target.read_text())
    assert document["settings"]["concurrency"] == 2
    assert document["results"]["num_ok"] == 4
    assert document["results"]["good_fraction"] == 1.0
    assert "secret" not in target.read_text()
    assert server.headers[-1]["Authorization"] == "Bearer secret"


def test_an_open_loop_runs_for_the_number_of_requests(server: FakeServer) -> None:
    arguments = ["serve", server.url, "--request-rate", "inf", "--num-requests", "5", "--output-tokens", "2"]
    result = CliRunner().invoke(bench_app, arguments)
    assert result.exit_code == 0, result.output
    assert "5 of 5 complete" in result.output


def test_a_run_in_which_nothing_succeeds_exits_with_an_error(server: FakeServer) -> None:
    server.status, server.fail_first = 503, 3
    result = CliRunner().invoke(bench_app, ["serve", server.url, "--num-requests", "2"])
    assert result.exit_code == 1
    assert "2 x HTTP 503 overloaded" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--request-rate", "1", "--concurrency", "2"], "give one of them"),
        (["--concurrency", "0"], "--concurrency is 0"),
        (["--images", "random", "--image-size", "big"], "336x336"),
        (["--images", "/nowhere"], "holds no pictures"),
        (["--image-reuse", "2", "--images", "random"], "between 0 and 1"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_sent(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(bench_app, ["serve", "http://127.0.0.1:9", *arguments])
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)
