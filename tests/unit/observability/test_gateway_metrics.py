"""What one request leaves in the gateway's metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import foveal
from foveal.core.clock import ManualClock
from foveal.core.priority import Priority
from foveal.observability.exchange_record import OUTCOMES, ExchangeRecord, Outcome
from foveal.observability.gateway_catalogue import GATEWAY_CATALOGUE
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import BackendGauges, GatewaySnapshot
from foveal.observability.waterfall import STAGES, Stage, Waterfall

SNAPSHOT = GatewaySnapshot(
    requests_in_flight=3,
    queue_length={"P2": 7},
    queue_cost_ms={"P2": 700.0},
    backends=(BackendGauges("a", True, 2, 8, 1500.0), BackendGauges("b", False)),
    cache_bytes={"memory": 10},
    cache_entries={"memory": 1},
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def metrics(clock: ManualClock) -> GatewayMetrics:
    return GatewayMetrics(lambda: SNAPSHOT, clock.now_s, max_tenants=2)


def _walk(clock: ManualClock, stages: dict[Stage, float]) -> Waterfall:
    waterfall = Waterfall(clock.now_s)
    for stage, seconds in stages.items():
        clock.advance(seconds)
        waterfall.mark(stage)
    return waterfall


def _answered(**changes: object) -> ExchangeRecord:
    record = ExchangeRecord("r", model="m", tenant="t", outcome="success", stream=True, finish_reasons=("stop",))
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def test_every_gateway_metric_is_exposed_with_its_type(metrics: GatewayMetrics, clock: ManualClock) -> None:
    metrics.finished(_answered(), _walk(clock, {"backend": 0.1}))
    metrics.backend_finished("a", "ok", 0.1)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    for spec in GATEWAY_CATALOGUE:
        assert families[spec.name.removesuffix("_total")].type == spec.kind, spec.name


def test_no_counter_is_promised_that_nobody_counts() -> None:
    source = Path(foveal.__file__).parent
    files = [*(source / "gateway").rglob("*.py"), *(source / "observability").glob("*.py")]
    code = "".join(path.read_text() for path in files if not path.name.endswith("_catalogue.py"))
    counters = [spec.name.removeprefix("foveal_gateway_") for spec in GATEWAY_CATALOGUE if spec.kind == "counter"]
    assert [name for name in counters if f'{name}"' not in code] == []


def test_the_first_token_is_timed_from_the_complete_body(metrics: GatewayMetrics, clock: ManualClock) -> None:
    stages: dict[Stage, float] = {"read": 5.0, "auth": 0.001, "queue": 0.05, "backend": 0.4, "stream": 0.9}
    metrics.finished(_answered(completion_tokens=10), _walk(clock, stages))
    labels = {"model_name": "m", "priority": "P1"}
    assert metrics.value("foveal_gateway_time_to_first_token_seconds_sum", **labels) == pytest.approx(0.451)
    assert metrics.value("foveal_gateway_e2e_request_latency_seconds_sum", **labels) == pytest.approx(1.351)
    assert metrics.value("foveal_gateway_request_queue_time_seconds_sum", **labels) == pytest.approx(0.05)
    tpot = metrics.value("foveal_gateway_request_time_per_output_token_seconds_sum", model_name="m")
    assert tpot == pytest.approx(0.1)


def test_overhead_is_the_gateways_own_work_only(metrics: GatewayMetrics, clock: ManualClock) -> None:
    stages: dict[Stage, float] = {
        "read": 5.0,
        "auth": 0.001,
        "parse": 0.002,
        "queue": 3.0,
        "backend": 1.0,
        "finish": 0.004,
    }
    metrics.finished(_answered(), _walk(clock, stages))
    assert metrics.value("foveal_gateway_overhead_seconds_sum") == pytest.approx(0.007)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_request_ends_in_exactly_one_outcome(
    metrics: GatewayMetrics, clock: ManualClock, outcome: Outcome
) -> None:
    metrics.received()
    metrics.finished(_answered(outcome=outcome, code="x"), _walk(clock, {"read": 0.1}))
    ended = [
        metrics.value("foveal_gateway_requests_total", model_name="m", tenant="t", priority="P1", outcome=other)
        for other in OUTCOMES
    ]
    assert sum(value or 0 for value in ended) == 1
    assert metrics.value("foveal_gateway_requests_received_total") == 1
    errors = metrics.value("foveal_gateway_errors_total", model_name="m", code="x")
    assert errors == (None if outcome == "success" else 1)


def test_tenants_above_the_cap_share_a_label(metrics: GatewayMetrics, clock: ManualClock) -> None:
    for tenant in "abcda":
        metrics.finished(_answered(tenant=tenant, prompt_tokens=10), _walk(clock, {"backend": 0.1}))
    tokens = {t: metrics.value("foveal_gateway_prompt_tokens_total", model_name="m", tenant=t) for t in "abcd"}
    assert tokens == {"a": 20, "b": 10, "c": None, "d": None}
    assert metrics.value("foveal_gateway_prompt_tokens_total", model_name="m", tenant="other") == 20
    assert metrics.value("foveal_gateway_active_tenants") == 4


def test_a_tenant_is_active_for_five_minutes(metrics: GatewayMetrics, clock: ManualClock) -> None:
    metrics.finished(_answered(), _walk(clock, {"backend": 0.1}))
    clock.advance(299)
    assert metrics.value("foveal_gateway_active_tenants") == 1
    clock.advance(2)
    assert metrics.value("foveal_gateway_active_tenants") == 0


def test_a_backend_cannot_make_up_labels(metrics: GatewayMetrics, clock: ManualClock) -> None:
    record = _answered(finish_reasons=("length", "i-made-this-up"))
    metrics.finished(record, _walk(clock, {"backend": 0.1}))
    assert metrics.value("foveal_gateway_choices_finished_total", model_name="m", finished_reason="length") == 1
    assert metrics.value("foveal_gateway_choices_finished_total", model_name="m", finished_reason="other") == 1
    assert "i-made-this-up" not in metrics.render().decode()


def test_vision_cost_is_counted_per_tenant(metrics: GatewayMetrics, clock: ManualClock) -> None:
    record = _answered(num_images=2, vision_tokens=512, vision_ms=80.0, cost_ms=300.0, priority=Priority.P0)
    metrics.finished(record, _walk(clock, {"backend": 0.1}))
    labels = {"model_name": "m", "tenant": "t"}
    assert metrics.value("foveal_gateway_vision_tokens_total", **labels) == 512
    assert metrics.value("foveal_gateway_vision_seconds_total", **labels) == pytest.approx(0.08)
    assert metrics.value("foveal_gateway_cost_seconds_total", **labels) == pytest.approx(0.3)


def test_a_first_failure_has_a_zero_before_it_so_that_its_rate_is_seen(metrics: GatewayMetrics) -> None:
    for name, labels in (
        ("backend_requests_total", {"backend": "b", "result": "connect"}),
        ("backend_ejections_total", {"backend": "b"}),
        ("shed_total", {"priority": "P0", "reason": "queue_full"}),
    ):
        assert metrics.value(f"foveal_gateway_{name}", **labels) == 0, name


def test_gauges_are_read_when_somebody_scrapes(metrics: GatewayMetrics) -> None:
    assert metrics.value("foveal_gateway_queue_length", priority="P2") == 7
    assert metrics.value("foveal_gateway_queue_length", priority="P0") == 0
    assert metrics.value("foveal_gateway_backend_up", backend="b") == 0
    assert metrics.value("foveal_gateway_backend_outstanding_seconds", backend="a") == 1.5


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.floats(0, 10)), max_size=20))
def test_the_stages_of_a_waterfall_add_up_to_its_whole(steps: list[tuple[Stage, float]]) -> None:
    clock = ManualClock(50.0)
    waterfall = Waterfall(clock.now_s)
    for stage, seconds in steps:
        clock.advance(seconds)
        waterfall.mark(stage)
    assert sum(waterfall.durations().values()) == pytest.approx(clock.now_s() - 50.0)


def test_server_timing_holds_the_waterfall_and_the_backends_own(clock: ManualClock) -> None:
    waterfall = _walk(clock, {"read": 0.0015, "auth": 0.000001, "queue": 0.1, "backend": 0.25})
    assert waterfall.server_timing(b"queue;dur=3.00, ttft;dur=200.00") == (
        b"read;dur=1.50, queue;dur=100.00, backend;dur=250.00, total;dur=351.50, "
        b"backend-queue;dur=3.00, backend-ttft;dur=200.00"
    )
    assert waterfall.describe() == "read 1.5 | queue 100.0 | backend 250.0 ms"


def test_pending_values_stay_bounded_where_nobody_scrapes(metrics: GatewayMetrics, clock: ManualClock) -> None:
    waterfall = _walk(clock, {"read": 0.1, "backend": 0.1, "stream": 0.1})
    for _ in range(20_000):
        metrics.finished(_answered(), waterfall)
    assert metrics.num_pending < 20_000
    assert metrics.value("foveal_gateway_overhead_seconds_count") == 20_000


def test_a_stage_that_comes_twice_is_summed(clock: ManualClock) -> None:
    waterfall = Waterfall(clock.now_s)
    for seconds in (0.1, 0.2):
        clock.advance(seconds)
        waterfall.mark("queue")
    assert waterfall.durations()["queue"] == pytest.approx(0.3)
