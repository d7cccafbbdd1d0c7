"""foveal observe, diagnose and top as a person runs them."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from foveal.cli import diagnose, observe, top
from foveal.cli.top_parts import bar, duration, sparkline
from foveal.core.errors import ConfigurationError
from foveal.core.priority import Priority
from foveal.observability.diagnosis.scrape import MetricsPageError
from foveal.observability.gateway_snapshot import BackendGauges
from support.provoked_traffic import EngineTraffic, GatewayTraffic


class PageServer:
    """Answers GETs with `pages`, one after the other, then with the last one again."""

    def __init__(self, pages: list[str]) -> None:
        outer, self.pages = self, pages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (outer.pages.pop(0) if len(outer.pages) > 1 else outer.pages[0]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def sick_engine() -> Iterator[PageServer]:
    engine = EngineTraffic()
    engine.gauge("kv_cache_usage_perc", 0.98)
    pages = [engine.page()]
    for _ in range(30):
        engine.request(reason="length")
    engine.add("num_preemptions_total", 4)
    pages.append(engine.page())
    server = PageServer(pages)
    thread = threading.Thread(target=server.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.server.shutdown()
    server.server.server_close()
    thread.join()


def test_diagnose_prints_causes_and_remedies_and_exits_with_one(sick_engine: PageServer) -> None:
    result = CliRunner().invoke(diagnose.command, [sick_engine.url, "--window-s", "0.02", "--interval-s", "0.01"])
    assert result.exit_code == 1, result.output
    assert "The KV cache is too small for what runs" in result.output
    assert "--kv-dtype int8" in result.output
    assert "truncated_answers" in result.output


def test_diagnose_against_a_saved_page_as_json(sick_engine: PageServer, tmp_path: Path) -> None:
    saved = tmp_path / "page"
    saved.write_text(sick_engine.pages.pop(0))
    result = CliRunner().invoke(diagnose.command, [sick_engine.url, "--before", str(saved), "--json"])
    (page,) = json.loads(result.stdout)
    assert [finding["code"] for finding in page["findings"]] == ["kv_pressure", "truncated_answers"]
    assert all(finding["evidence"] and finding["remedy"] for finding in page["findings"])


def test_a_window_of_no_length_is_refused() -> None:
    result = CliRunner().invoke(diagnose.command, ["http://localhost", "--window-s", "0"])
    assert isinstance(result.exception, ConfigurationError)


def test_observe_writes_dashboards_and_rules_with_the_thresholds_asked_for(tmp_path: Path) -> None:
    assert CliRunner().invoke(observe.command, ["dashboards", str(tmp_path / "d")]).exit_code == 0
    titles = {json.loads(path.read_text())["title"] for path in (tmp_path / "d").iterdir()}
    assert titles == {"Foveal gateway", "Foveal engine", "Foveal: every metric"}
    assert CliRunner().invoke(observe.command, ["alerts", str(tmp_path), "--p95-ttft-s", "2.5"]).exit_code == 0
    rules = yaml.safe_load((tmp_path / "foveal-alerts.yml").read_text())
    assert rules["groups"][0]["rules"][0]["expr"].endswith("> 2.5")


def _screen(traffic: GatewayTraffic | EngineTraffic, *, provoke: object) -> str:
    window = traffic.window(provoke)  # type: ignore[arg-type]
    stream = io.StringIO()
    Console(file=stream, width=160).print(top.view("http://localhost:8080/metrics", window))
    return stream.getvalue()


def test_top_shows_a_gateways_traffic_backends_classes_and_diagnosis() -> None:
    traffic = GatewayTraffic()
    traffic.set(backends=(BackendGauges("alpha", True, 7, 8), BackendGauges("beta", False)), queue_length={"P2": 12})

    def provoke() -> None:
        for _ in range(60):
            traffic.request(priority=Priority.P0, stages={"read": 0.002, "queue": 0.4, "backend": 0.1, "stream": 0.5})
            traffic.metrics.backend_finished("alpha", "ok", 0.1)

    screen = _screen(traffic, provoke=provoke)
    for text in ("gateway http://localhost:8080", "success 2", "alpha", "beta", "out", "88 %", "first token", "queue"):
        assert text in screen, text
    assert "A backend is out of rotation" in screen
    assert "Background requests (P2) fill the queue" in screen


def test_top_shows_an_engines_load_and_diagnosis() -> None:
    engine = EngineTraffic()
    engine.gauge("kv_cache_usage_perc", 0.97)

    def provoke() -> None:
        for _ in range(30):
            engine.request()
        engine.add("generation_tokens_total", 900)

    screen = _screen(engine, provoke=provoke)
    for text in ("engine http://localhost:8080", "16 running", "97 %", "prefill", "between", "30"):
        assert text in screen or text == "between", text
    assert "The KV cache is too small" in screen


def test_top_of_a_server_that_is_not_there_says_so() -> None:
    result = CliRunner().invoke(top.command, ["http://127.0.0.1:9", "--once"])
    assert isinstance(result.exception, MetricsPageError)


def test_a_sparkline_is_as_high_as_its_values() -> None:
    assert sparkline([0, 1, 2, 4, 8], 10) == "▁▁▂▄█"
    assert sparkline([], 10) == ""
    assert sparkline([0, 0], 10) == "▁▁"
    assert len(sparkline(range(100), 30)) == 30


@pytest.mark.parametrize(
    ("ratio", "meter"),
    [(0.0, "········   0 %"), (0.5, "████····  50 %"), (1.0, "████████ 100 %"), (1.7, "████████ 170 %"), (None, "-")],
)
def test_a_bar_is_filled_by_its_ratio(ratio: float | None, meter: str) -> None:
    assert bar(ratio, 8).plain == meter


def test_durations_have_a_fitting_unit() -> None:
    assert [duration(s) for s in (None, 0.00002, 0.0123, 1.5, 75.0)] == ["-", "20 us", "12.3 ms", "1.5 s", "75 s"]
