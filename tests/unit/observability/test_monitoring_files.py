"""Dashboards and alert rules: sound queries, complete, and accepted by Prometheus's own checker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from foveal.core.errors import ConfigurationError
from foveal.observability.alerts.promise_rules import ModelPromise
from foveal.observability.alerts.render import RULES_FILE, TESTS_FILE, alert_groups, render_rules, render_tests
from foveal.observability.alerts.rule import AlertRule
from foveal.observability.alerts.thresholds import AlertThresholds
from foveal.observability.catalogue import CATALOGUE
from foveal.observability.dashboards.all import dashboards
from foveal.observability.dashboards.grafana import render_dashboard
from foveal.observability.dashboards.panel import Panel
from foveal.observability.promql.lint import lint

PANELS = [panel for dashboard in dashboards().values() for panel in dashboard.panels]
RULES = [rule for rules in alert_groups(AlertThresholds()).values() for rule in rules]
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (.ci/prometheus)"
)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_of_every_panel_fits_the_catalogue(panel: Panel) -> None:
    assert panel.queries
    for query in panel.queries:
        assert lint(query.expr, CATALOGUE) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_alert_fits_the_catalogue_and_has_a_case_that_fires_and_one_that_does_not(rule: AlertRule) -> None:
    assert lint(rule.expr, CATALOGUE) == []
    assert any(case.labels for case in rule.cases)
    assert any(not case.labels for case in rule.cases)


def test_the_series_of_alert_cases_fit_the_catalogue() -> None:
    series = {series for rule in RULES for case in rule.cases for series in case.series}
    selectors = [
        f"rate({name}[5m])" if "_total" in name or re.search(r"_(bucket|count)\{", name) else name for name in series
    ]
    assert [problem for selector in selectors for problem in lint(selector, CATALOGUE)] == []


def test_every_metric_has_a_panel() -> None:
    text = "".join(query.expr for panel in dashboards()["foveal-every-metric.json"].panels for query in panel.queries)
    assert [spec.name for spec in CATALOGUE if spec.name not in text] == []


@pytest.mark.parametrize("name", dashboards())
def test_panels_of_a_dashboard_do_not_overlap_and_have_their_own_ids(name: str) -> None:
    document = json.loads(render_dashboard(dashboards()[name]))
    cells: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        grid = panel["gridPos"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("name", "value"), [("error_ratio", 1.0), ("p95_ttft_s", 0.0), ("kv_usage_ratio", -1.0)])
def test_a_threshold_that_never_or_always_fires_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        AlertThresholds(**{name: value})


def test_a_threshold_reaches_its_rule() -> None:
    assert "> 0.25" in yaml.safe_load(render_rules(AlertThresholds(error_ratio=0.25)))["groups"][0]["rules"][1]["expr"]


def test_what_a_model_was_promised_becomes_rules_that_fit_the_catalogue() -> None:
    promises = {'vl"m': ModelPromise(1.5, 20.0, 0.995)}
    *_, group = yaml.safe_load(render_rules(AlertThresholds(), promises))["groups"]
    assert [rule["expr"].rsplit("> ", 1)[1] for rule in group["rules"]] == ["1.5", "20", "0.005"]
    for rule in group["rules"]:
        assert lint(rule["expr"], CATALOGUE) == []


@needs_promtool
def test_a_promise_is_broken_by_too_many_refusals_and_not_by_the_clients_own_errors(tmp_path: Path) -> None:
    (tmp_path / RULES_FILE).write_text(render_rules(AlertThresholds(), {"m": ModelPromise(1.0, 10.0, 0.99)}))
    name = "foveal_gateway_requests_total"
    labels = 'model_name="m", tenant="t", priority="P1"'

    def case(alerts: list[dict[str, object]], **per_minute: int) -> dict[str, object]:
        series = [
            {"series": f'{name}{{{labels}, outcome="{outcome}"}}', "values": f"0+{count}x90"}
            for outcome, count in per_minute.items()
        ]
        expected = {"eval_time": "80m", "alertname": "PromisedAvailability", "exp_alerts": alerts}
        return {"interval": "1m", "input_series": series, "alert_rule_test": [expected]}

    summary = "m fails more often than promised"
    description = "Over the last hour more than 1 % of its requests ended in an error, a time-out or a refusal."
    fired: dict[str, object] = {
        "exp_labels": {"severity": "critical", "model_name": "m"},
        "exp_annotations": {"summary": summary, "description": description},
    }
    tests = [case([fired], success=95, shed=5), case([], success=1000, shed=5), case([], success=10, client_error=90)]
    document = {"rule_files": [RULES_FILE], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / TESTS_FILE).write_text(yaml.safe_dump(document))
    tested = _promtool(tmp_path, "test", "rules", TESTS_FILE)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _promtool(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, text=True, check=False)


@needs_promtool
def test_prometheus_accepts_the_rules_and_they_fire_on_their_cases_only(tmp_path: Path) -> None:
    (tmp_path / RULES_FILE).write_text(render_rules(AlertThresholds()))
    (tmp_path / TESTS_FILE).write_text(render_tests(AlertThresholds()))
    checked = _promtool(tmp_path, "check", "rules", RULES_FILE)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = _promtool(tmp_path, "test", "rules", TESTS_FILE)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@needs_promtool
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_cases_notice_a_rule_that_never_or_always_fires(tmp_path: Path, rule: AlertRule) -> None:
    tests = yaml.safe_load(render_tests(AlertThresholds()))
    tests["tests"] = [case for case in tests["tests"] if case["name"].startswith(f"{rule.name},")]
    (tmp_path / TESTS_FILE).write_text(yaml.safe_dump(tests))
    for broken in ("vector(0) > 1", "vector(1) > 0"):
        document = yaml.safe_load(render_rules(AlertThresholds()))
        for group in document["groups"]:
            for one in group["rules"]:
                if one["alert"] == rule.name:
                    one["expr"] = broken
        (tmp_path / RULES_FILE).write_text(yaml.safe_dump(document))
        assert _promtool(tmp_path, "test", "rules", TESTS_FILE).returncode != 0, broken


@needs_promtool
def test_prometheus_accepts_the_example_configuration() -> None:
    monitoring = Path(__file__).parents[3] / "monitoring"
    checked = _promtool(monitoring, "check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_prometheus_reads_every_query_of_the_dashboards(tmp_path: Path) -> None:
    expressions = [query.expr.replace("$__rate_interval", "5m") for panel in PANELS for query in panel.queries]
    records = [{"record": f"check:{number}:x", "expr": expr} for number, expr in enumerate(expressions)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": records}]}))
    checked = _promtool(tmp_path, "check", "rules", "--lint=none", "queries.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_prometheus_finds_nothing_to_complain_about_in_our_metrics_pages() -> None:
    from foveal.core.clock import ManualClock
    from foveal.observability.gateway_metrics import GatewayMetrics
    from foveal.observability.gateway_snapshot import GatewaySnapshot

    page = GatewayMetrics(GatewaySnapshot, ManualClock(1.0).now_s).render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()
