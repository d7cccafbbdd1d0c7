"""Each rule on a case that was provoked, and silence where nothing is wrong."""

from __future__ import annotations

import re
from pathlib import Path

from foveal.core.priority import Priority
from foveal.observability.diagnosis.diagnose import diagnose, has_traffic
from foveal.observability.diagnosis.finding import Finding
from foveal.observability.diagnosis.window import Window
from foveal.observability.gateway_snapshot import BackendGauges
from support.provoked_traffic import EngineTraffic, GatewayTraffic


def _only(window: Window, code: str) -> Finding:
    """The one finding with this code, complete."""
    findings = [finding for finding in diagnose(window) if finding.code == code]
    assert len(findings) == 1, [finding.code for finding in diagnose(window)]
    assert findings[0].cause
    assert findings[0].evidence
    assert findings[0].remedy
    return findings[0]


def test_healthy_traffic_has_no_findings() -> None:
    gateway, engine = GatewayTraffic(), EngineTraffic()
    window = gateway.window(lambda: [gateway.request() for _ in range(100)] and None)
    assert has_traffic(window)
    assert diagnose(window) == []
    window = engine.window(lambda: [engine.request() for _ in range(100)] and None)
    assert has_traffic(window)
    assert diagnose(window) == []


def test_no_traffic_is_no_finding() -> None:
    gateway, engine = GatewayTraffic(), EngineTraffic()
    gateway.set(backends=(BackendGauges("a", True, 0, 8),))
    engine.gauge("num_requests_running", 0)
    for window in (gateway.window(lambda: None), engine.window(lambda: None)):
        assert not has_traffic(window)
        assert diagnose(window) == []


# Low utilisation.


def test_idle_replicas_are_low_utilisation() -> None:
    traffic = GatewayTraffic()
    traffic.set(backends=(BackendGauges("a", True, 1, 8), BackendGauges("b", True, 0, 8)))
    finding = _only(traffic.window(lambda: [traffic.request() for _ in range(30)] and None), "low_utilisation")
    assert finding.severity == "notice"
    assert "6.25 %" in finding.evidence[0]
    assert "stop replicas" in finding.remedy[0]


def test_free_seats_beside_a_queue_are_a_problem_with_the_backend_named() -> None:
    traffic = GatewayTraffic()
    traffic.set(backends=(BackendGauges("a", False, 0, 8), BackendGauges("b", True, 2, 8)), queue_length={"P1": 5})
    finding = _only(traffic.window(lambda: [traffic.request() for _ in range(30)] and None), "low_utilisation")
    assert finding.severity == "problem"
    assert "out of rotation: a" in finding.evidence


def test_an_engine_that_waits_for_pictures_is_told_apart_from_an_idle_one() -> None:
    engine = EngineTraffic()
    engine.gauge("num_requests_running", 2)
    slow = engine.window(lambda: [engine.request(preprocess_s=0.8) for _ in range(30)] and None)
    assert "--preprocess-workers" in _only(slow, "low_utilisation").remedy[0]
    idle = engine.window(lambda: [engine.request() for _ in range(30)] and None)
    assert _only(idle, "low_utilisation").title == "The engine idles"


# P99 far above P50.


def test_a_tail_in_the_queue_is_named_with_its_stage() -> None:
    engine = EngineTraffic()

    def provoke() -> None:
        for number in range(100):
            engine.request(queue_s=4.0 if number % 20 == 0 else 0.005)

    finding = _only(engine.window(provoke), "tail_latency")
    assert finding.title.endswith("queue")
    assert "--max-num-seqs" in finding.remedy[0]


def test_a_tail_of_remote_pictures_is_named() -> None:
    engine = EngineTraffic()

    def provoke() -> None:
        for number in range(100):
            engine.request(fetch_s=3.0 if number % 20 == 0 else 0.0)

    assert _only(engine.window(provoke), "tail_latency").title.endswith("image fetch")


def test_a_slow_backend_is_named() -> None:
    traffic = GatewayTraffic()

    def provoke() -> None:
        for number in range(100):
            is_slow = number % 10 == 0
            seconds = 4.0 if is_slow else 0.1
            traffic.request(stages={"read": 0.001, "backend": seconds, "stream": 0.5})
            traffic.metrics.backend_finished("b" if is_slow else "a", "ok", seconds)

    finding = _only(traffic.window(provoke), "tail_latency")
    assert finding.title == "Backend b is slow"
    assert "the others" in finding.evidence[-1]


def test_a_tail_of_retries_is_named() -> None:
    traffic = GatewayTraffic()

    def provoke() -> None:
        for number in range(100):
            lost = {"retry": 3.0} if number % 20 == 0 else {}
            traffic.request(stages={"read": 0.001, **lost, "backend": 0.1, "stream": 0.5})  # type: ignore[dict-item]

    assert _only(traffic.window(provoke), "tail_latency").title.endswith("retry")


def test_background_requests_that_wait_are_no_tail_but_normal_ones_are() -> None:
    def provoke(traffic: GatewayTraffic, late: Priority) -> None:
        for number in range(100):
            priority = late if number % 10 == 0 else Priority.P1
            waits = {"queue": 4.0} if number % 10 == 0 else {}
            traffic.request(priority=priority, stages={"read": 0.001, **waits, "backend": 0.1, "stream": 0.5})  # type: ignore[dict-item]

    traffic = GatewayTraffic()
    assert diagnose(traffic.window(lambda: provoke(traffic, Priority.P2))) == []
    finding = _only(traffic.window(lambda: provoke(traffic, Priority.P1)), "tail_latency")
    assert finding.title.endswith("queue")
    assert "of P1" in finding.evidence[0]


def test_a_few_requests_are_no_tail() -> None:
    engine = EngineTraffic()
    window = engine.window(lambda: [engine.request(queue_s=queue_s) for queue_s in (0.01, 5.0)] and None)
    assert diagnose(window) == []


# Memory.


def test_preemptions_are_kv_pressure_and_pictures_are_blamed_where_there_are_some() -> None:
    engine = EngineTraffic()
    engine.gauge("kv_cache_usage_perc", 0.97)

    def provoke() -> None:
        for _ in range(30):
            engine.request(prompt_tokens=700, images=2)
        engine.add("num_preemptions_total", 12)

    finding = _only(engine.window(provoke), "kv_pressure")
    assert finding.severity == "problem"
    assert "Pictures" in finding.cause
    assert "12 sequences lost" in finding.evidence[1]


def test_a_memory_guard_that_acts_is_memory_pressure() -> None:
    engine = EngineTraffic()
    engine.gauge("memory_used_bytes", 7.6 * 2**30)
    engine.gauge("memory_limit_bytes", 8 * 2**30)

    def provoke() -> None:
        engine.add("memory_guard_actions_total", 3, "shrink_features")
        engine.add("requests_refused_memory_total", 2)

    finding = _only(engine.window(provoke), "memory_pressure")
    assert any("shrink features 3 times" in line for line in finding.evidence)
    assert any("2 requests were refused" in line for line in finding.evidence)


# Truncated answers.


def test_answers_cut_off_at_max_tokens_are_found_at_engine_and_gateway() -> None:
    engine, gateway = EngineTraffic(), GatewayTraffic()
    at_engine = engine.window(lambda: [engine.request(reason="length") for _ in range(30)] and None)
    assert "never stops" in _only(at_engine, "truncated_answers").cause

    def provoke() -> None:
        for number in range(100):
            gateway.request(finish_reasons=("length",) if number % 4 == 0 else ("stop",))

    finding = _only(gateway.window(provoke), "truncated_answers")
    assert "25 of 100" in finding.evidence[0]


# Cold caches.


def test_an_image_cache_that_never_hits_is_cold() -> None:
    engine = EngineTraffic()

    def provoke() -> None:
        engine.add("feature_cache_queries_total", 100)
        engine.add("feature_cache_hits_total", 3)

    finding = _only(engine.window(provoke), "cold_caches")
    assert "3 of 100" in finding.evidence[0]
    assert "affinity" in finding.remedy[0]


def test_a_young_server_is_told_to_wait() -> None:
    engine = EngineTraffic()
    page = engine.page
    engine.page = lambda: page() + f"process_start_time_seconds {engine.at_s - 60}\n"  # type: ignore[method-assign]
    window = engine.window(lambda: engine.add("feature_cache_queries_total", 100))
    assert _only(window, "cold_caches").title == "The caches are still cold"


def test_a_response_cache_that_never_hits_is_cold() -> None:
    traffic = GatewayTraffic()
    window = traffic.window(lambda: [traffic.request(cache="miss") for _ in range(60)] and None)
    assert "0 of 60" in _only(window, "cold_caches").evidence[0]
    saved = traffic.window(lambda: [traffic.request(cache=("hit", "miss")[k % 2]) for k in range(60)] and None)
    assert diagnose(saved) == []


# Queueing.


def test_background_requests_that_fill_the_queue_without_harm_are_a_notice() -> None:
    traffic = GatewayTraffic()
    traffic.set(queue_length={"P2": 40, "P1": 1})

    def provoke() -> None:
        for _ in range(30):
            traffic.request(priority=Priority.P0, stages={"read": 0.001, "queue": 0.01, "backend": 0.1})
            traffic.request(priority=Priority.P2, stages={"read": 0.001, "queue": 9.0, "backend": 0.1})

    finding = _only(traffic.window(provoke), "queueing_by_p2")
    assert finding.severity == "notice"
    assert "as intended" in finding.cause


def test_background_requests_that_delay_urgent_ones_are_a_problem() -> None:
    traffic = GatewayTraffic()
    traffic.set(queue_length={"P2": 40})

    def provoke() -> None:
        for _ in range(30):
            traffic.request(priority=Priority.P0, stages={"read": 0.001, "queue": 0.4, "backend": 0.1})
        traffic.metrics.count("shed_total", "P2", "queue_full", by=7)

    finding = _only(traffic.window(provoke), "queueing_by_p2")
    assert finding.severity == "problem"
    assert "P0" in finding.cause
    assert any("P2 7" in line for line in finding.evidence)
    assert "urgent_slots" in finding.remedy[0]


def test_a_queue_of_normal_requests_is_not_blamed_on_p2() -> None:
    traffic = GatewayTraffic()
    traffic.set(queue_length={"P1": 12, "P2": 1})
    window = traffic.window(
        lambda: [traffic.request(stages={"queue": 1.0, "backend": 0.1}) for _ in range(30)] and None
    )
    assert _only(window, "queueing").severity == "problem"


# Encoder.


def test_an_encoder_that_takes_most_of_prefill_is_the_bottleneck() -> None:
    engine = EngineTraffic()

    def provoke() -> None:
        for _ in range(30):
            engine.request(prefill_s=0.5, encode_s=0.42, images=1)
        engine.add("encoded_images_total", 30)
        engine.add("feature_cache_queries_total", 30)
        engine.add("feature_cache_hits_total", 15)

    finding = _only(engine.window(provoke), "encoder_bound")
    assert "84 %" in finding.evidence[0]


def test_the_gateway_sees_it_in_its_prices() -> None:
    traffic = GatewayTraffic()
    window = traffic.window(
        lambda: (
            [traffic.request(num_images=1, vision_ms=600.0, cost_ms=800.0, vision_tokens=256) for _ in range(30)]
            and None
        )
    )
    finding = _only(window, "encoder_bound")
    assert "75 %" in finding.evidence[0]
    assert "256 vision tokens" in finding.evidence[1]


# Failures.


def test_a_backend_out_of_rotation_is_named_with_what_failed() -> None:
    traffic = GatewayTraffic()
    traffic.set(backends=(BackendGauges("a", True, 6, 8), BackendGauges("b", False, 0, 0)))

    def provoke() -> None:
        for _ in range(5):
            traffic.metrics.backend_finished("b", "connect")

    finding = _only(traffic.window(provoke), "backend_down")
    assert "b: 5 attempts ended in connect" in finding.evidence


def test_errors_are_told_by_code() -> None:
    traffic = GatewayTraffic()

    def provoke() -> None:
        for number in range(50):
            traffic.request(outcome="error" if number % 5 == 0 else "success", code="backend_failed")

    assert "backend_failed 10" in _only(traffic.window(provoke), "errors").cause


def test_the_guide_lists_every_finding() -> None:
    rules = Path(diagnose.__code__.co_filename).parent / "rules"
    codes = {
        code for path in rules.glob("*.py") for code in re.findall(r'Finding\(\s*"([a-z_0-9]+)"', path.read_text())
    }
    guide = (Path(__file__).parents[4] / "docs" / "guides" / "observability.md").read_text()
    assert len(codes) > 8
    assert [code for code in codes if f"`{code}`" not in guide] == []


def test_problems_come_before_notices() -> None:
    traffic = GatewayTraffic()
    traffic.set(backends=(BackendGauges("a", True, 0, 8), BackendGauges("b", False, 0, 8)))
    window = traffic.window(lambda: [traffic.request(finish_reasons=("length",)) for _ in range(60)] and None)
    severities = [finding.severity for finding in diagnose(window)]
    assert severities == sorted(severities, key=lambda severity: severity != "problem")
    assert set(severities) == {"problem", "notice"}
