"""What a reload changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveal.gateway.config.diff import diff
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.load import parse_config
from foveal.gateway.config.problems import shown
from foveal.gateway.config.telemetry import LoggingConfig, MetricsConfig, TracingConfig
from foveal.gateway.config.traffic import UpstreamTlsConfig

BEFORE = """
models:
  a:
    versions:
      1: {weight: 90, backends: [{url: http://h:1, api_key: first-secret}, http://h:2]}
tenants: {t: {weight: 1}}
state: s.db
admin: {key: old-admin-key-0123}
"""


def parsed(text: str) -> GatewayConfig:
    return parse_config(text, environment={})


def changed(*replacements: tuple[str, str]) -> list[str]:
    after = BEFORE
    for old, new in replacements:
        assert old in after
        after = after.replace(old, new)
    return [str(change) for change in diff(parsed(BEFORE), parsed(after)).changes]


def test_equal_configurations_have_no_difference() -> None:
    assert not diff(parsed(BEFORE), parsed(BEFORE))


def test_a_changed_value_is_named_with_both_values() -> None:
    assert changed(("weight: 90", "weight: 50"), ("{weight: 1}", "{weight: 1, models: [a]}")) == [
        "models.a.versions.1.weight: 90.0 -> 50.0",
        "tenants.t.models: (none) -> frozenset({'a'})",
    ]


def test_secrets_are_not_shown() -> None:
    assert changed(("first-secret", "other-secret"), ("old-admin-key-0123", "new-admin-key-4567")) == [
        "models.a.versions.1.backends.0.api_key: (secret) -> (another secret)",
        "admin.key: (secret) -> (another secret)",
    ]
    found = "".join(changed(("http://h:2]", "http://h:2, http://h:3]")))
    assert "secret" not in found


def test_added_and_removed_tenants_are_named() -> None:
    assert [c.split(":")[0] for c in changed(("tenants: {t: {weight: 1}}", "tenants: {u: {weight: 1}}"))] == [
        "tenants.t",
        "tenants.u",
    ]


@pytest.mark.parametrize(
    ("part", "place"),
    [
        (UpstreamTlsConfig(ca=Path("ca.pem")), "upstream_tls.ca"),
        (TracingConfig(sample_ratio=0.5), "tracing.sample_ratio"),
        (MetricsConfig(max_tenant_labels=5), "metrics.max_tenant_labels"),
        (LoggingConfig(level="debug", access=False), "logging.level"),
        (LoggingConfig(format="text", slow_request_s=1.0), "logging.format"),
    ],
)
def test_what_only_the_start_sets_up_waits_for_a_restart(part: Any, place: str) -> None:
    before = parsed(BEFORE)
    found = diff(before, replace(before, **{place.split(".")[0]: part}))
    assert [shown(change.place) for change in found.needs_restart] == [place]


def test_sockets_and_the_state_file_wait_for_a_restart_and_the_rest_does_not() -> None:
    after = (
        BEFORE.replace("s.db", "x.db") + "listen: {port: 1, drain_grace_s: 5}\ncache: {ttl_s: 1, disk_bytes: 1MiB}\n"
    )
    found = diff(parsed(BEFORE), parsed(after))
    assert {shown(c.place) for c in found.needs_restart} == {"state", "listen.port", "cache.disk_bytes"}
    assert len(found.changes) == 5
    larger = diff(parsed(after), parsed(after.replace("1MiB", "2MiB")))
    assert larger
    assert not larger.needs_restart
