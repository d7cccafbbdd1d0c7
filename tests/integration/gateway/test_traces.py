"""One trace from the client through gateway and engine, as a collector receives it over OTLP."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from foveal.engine.server.config import ServerConfig
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.models import BackendConfig, ModelConfig
from foveal.gateway.config.telemetry import TracingConfig
from support.fake_backend import fake_backend
from support.fake_engine import FakeEngine
from support.running_gateway import ask, gateway_config, running_gateway, until
from support.running_server import running_server

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass(frozen=True)
class ReceivedSpan:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


@dataclass
class Collector:
    url: str
    spans: list[ReceivedSpan] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    ReceivedSpan(
                        names["service.name"],
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        {one.key: one.value.string_value for one in span.attributes},
                    )
                    for span in scope.spans
                ]

    def of(self, service: str, name: str) -> ReceivedSpan:
        (found,) = [span for span in self.spans if (span.service, span.name) == (service, name)]
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    received = Collector("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            received.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


def _engine_config(collector: Collector) -> ServerConfig:
    return ServerConfig(port=0, access_log=False, otlp_endpoint=collector.url, trace_sample_ratio=0.0)


def _in_front_of(url: str, collector: Collector) -> GatewayConfig:
    backend = BackendConfig(url=url, id="engine", served_name="fake-vlm")
    return gateway_config(
        [],
        models={"vlm": ModelConfig(name="vlm", backends=(backend,))},
        tracing=TracingConfig(endpoint=collector.url, sample_ratio=0.0),
    )


async def test_a_clients_trace_runs_through_gateway_and_engine(collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01", "X-Request-Id": "req-7"}
    async with (
        running_server(FakeEngine(), _engine_config(collector)) as engine,
        running_gateway(_in_front_of(engine.url, collector)) as running,
        aiohttp.ClientSession(running.url) as session,
        session.post("/v1/chat/completions", json=ask(stream=True), headers=headers) as response,
    ):
        assert response.status == 200, await response.text()
        await response.read()
    # Both closed: what was pending has been sent.
    gateway, engine_span = collector.of("foveal-gateway", "chat vlm"), collector.of("foveal-engine", "chat fake-vlm")
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert gateway.parent_id == CLIENT_SPAN
    assert engine_span.parent_id == gateway.span_id
    assert gateway.attributes["foveal.request_id"] == "req-7"
    stages = {span.name for span in collector.spans if span.parent_id == gateway.span_id} - {engine_span.name}
    assert {"read", "backend", "stream"} <= stages
    assert {span.name for span in collector.spans if span.parent_id == engine_span.span_id} >= {
        "queue",
        "prefill",
        "decode",
    }


async def test_what_the_client_does_not_sample_is_not_sampled_anywhere(collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-00"}
    async with (
        running_server(FakeEngine(), _engine_config(collector)) as engine,
        running_gateway(_in_front_of(engine.url, collector)) as running,
        aiohttp.ClientSession(running.url) as session,
        session.post("/v1/chat/completions", json=ask(), headers=headers) as response,
    ):
        assert response.status == 200
    assert collector.spans == []


async def test_without_tracing_the_clients_header_reaches_the_backend_unchanged() -> None:
    header = f"00-{TRACE}-{CLIENT_SPAN}-01"
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
        session.post("/v1/chat/completions", json=ask(), headers={"traceparent": header}) as response,
    ):
        assert response.status == 200
    assert backend.requests[0].headers["traceparent"] == header


async def test_a_collector_that_is_not_there_harms_no_request() -> None:
    tracing = TracingConfig(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=1.0)
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend], tracing=tracing)) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        async with asyncio.timeout(30), session.post("/v1/chat/completions", json=ask()) as response:
            assert response.status == 200
        await until(lambda: running.ended == 1)
