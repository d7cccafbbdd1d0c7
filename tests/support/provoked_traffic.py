"""Windows over real metrics objects: traffic is provoked, the pages are rendered and parsed as in a scrape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from foveal.core.clock import ManualClock
from foveal.core.priority import Priority
from foveal.observability.diagnosis.scrape import Scrape, parse_page
from foveal.observability.diagnosis.window import Window
from foveal.observability.engine_catalogue import ENGINE_CATALOGUE
from foveal.observability.exchange_record import ExchangeRecord, Outcome
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import BackendGauges, GatewaySnapshot
from foveal.observability.metrics import Metrics
from foveal.observability.waterfall import Stage, Waterfall

__all__ = ["EngineTraffic", "GatewayTraffic"]

START_S = 1_700_000_000.0
WINDOW_S = 30.0


class GatewayTraffic:
    """A gateway with two busy backends and nothing wrong, until a test changes it."""

    def __init__(self) -> None:
        self.clock = ManualClock(START_S)
        self.snapshot = GatewaySnapshot(
            backends=(BackendGauges("a", True, 6, 8), BackendGauges("b", True, 6, 8)), cache_bytes={"memory": 1 << 20}
        )
        self.metrics = GatewayMetrics(lambda: self.snapshot, self.clock.now_s)

    def set(self, **changes: object) -> None:
        self.snapshot = replace(self.snapshot, **changes)  # type: ignore[arg-type]

    def request(
        self,
        *,
        priority: Priority = Priority.P1,
        outcome: Outcome = "success",
        stages: Mapping[Stage, float] | None = None,
        **facts: object,
    ) -> None:
        record = ExchangeRecord("r", model="m", tenant="t", priority=priority, outcome=outcome, stream=True)
        record.finish_reasons, record.prompt_tokens, record.completion_tokens = ("stop",), 100, 20
        for name, value in facts.items():
            setattr(record, name, value)
        waterfall, at_s = Waterfall(self.clock.now_s), self.clock.now_s()
        for stage, seconds in (stages or {"read": 0.001, "backend": 0.1, "stream": 0.5}).items():
            at_s += seconds
            waterfall.mark(stage, at_s)
        self.metrics.received()
        self.metrics.finished(record, waterfall)

    def window(self, provoke: Callable[[], None]) -> Window:
        first = self._scrape()
        provoke()
        self.clock.advance(WINDOW_S / 2)
        middle = self._scrape()
        self.clock.advance(WINDOW_S / 2)
        return Window([first, middle, self._scrape()])

    def _scrape(self) -> Scrape:
        return parse_page(self.metrics.render().decode(), self.clock.now_s())


class EngineTraffic:
    """An engine half full with nothing wrong, until a test changes it."""

    def __init__(self) -> None:
        self.at_s = START_S
        self.values: dict[str, float | dict[str, float]] = {
            spec.name: {} if spec.labels else 0.0 for spec in ENGINE_CATALOGUE if spec.source == "snapshot"
        }
        self.values |= {"foveal_num_requests_running": 16.0, "foveal_max_num_seqs": 32.0}
        self.metrics = Metrics("m", lambda: self.values)

    def gauge(self, name: str, value: float) -> None:
        self.values[f"foveal_{name}"] = value

    def add(self, name: str, by: float, label: str = "") -> None:
        past = self.values[f"foveal_{name}"]
        if isinstance(past, dict):
            past[label] = past.get(label, 0.0) + by
        else:
            self.values[f"foveal_{name}"] = past + by

    def request(
        self,
        *,
        queue_s: float = 0.01,
        prefill_s: float = 0.1,
        encode_s: float = 0.0,
        reason: str = "stop",
        **more: float,
    ) -> None:
        """`more`: preprocess_s, fetch_s, prompt_tokens, generation_tokens, images."""
        observe = self.metrics.histogram
        fetch_s, preprocess_s = more.get("fetch_s", 0.0), more.get("preprocess_s", 0.005)
        observe("foveal_request_queue_time_seconds").observe(queue_s)
        observe("foveal_request_prefill_time_seconds").observe(prefill_s)
        observe("foveal_request_preprocess_time_seconds").observe(preprocess_s)
        if encode_s:
            observe("foveal_request_encode_time_seconds").observe(encode_s)
        if fetch_s:
            observe("foveal_request_image_fetch_time_seconds").observe(fetch_s)
        ttft_s = fetch_s + preprocess_s + queue_s + prefill_s
        observe("foveal_time_to_first_token_seconds").observe(ttft_s)
        observe("foveal_e2e_request_latency_seconds").observe(ttft_s + 0.5)
        observe("foveal_request_prompt_tokens").observe(more.get("prompt_tokens", 100))
        observe("foveal_request_generation_tokens").observe(more.get("generation_tokens", 20))
        observe("foveal_request_images").observe(more.get("images", 0))
        self.metrics.count("foveal_requests_finished_total", reason)

    def page(self) -> str:
        # Of this test process, and it would say that the server is young.
        return (
            "\n".join(line for line in self.metrics.render().decode().splitlines() if " process_" not in f" {line}")
            + "\n"
        )

    def window(self, provoke: Callable[[], None]) -> Window:
        first = parse_page(self.page(), self.at_s)
        provoke()
        middle = parse_page(self.page(), self.at_s + WINDOW_S / 2)
        return Window([first, middle, parse_page(self.page(), self.at_s + WINDOW_S)])
