"""Reading gateway.yaml: what is right comes out typed, what is wrong comes out with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.core.priority import Priority
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.load import load_config, parse_config

ROOT = Path(__file__).parents[4]
MINIMAL = "models: {m: {backends: [http://h:1]}}\n"


def problems_of(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, file="g.yaml", environment=environment or {})
    return str(caught.value).splitlines()


def test_the_example_is_a_good_configuration() -> None:
    config = load_config(ROOT / "examples" / "gateway.yaml", {})
    assert [spec.id for spec in config.backends] == [f"127.0.0.1:{port}" for port in (8001, 8002, 8003, 8011)]
    assert config.tenants["acme"].best_priority is Priority.P0
    assert config.tenants["acme"].id == "acme"
    assert config.listen.max_bytes_in_flight == 512 << 20
    assert config.keys_required
    assert config.state == ROOT / "examples" / "../gateway.db"
    assert config.admin.key is None
    assert config.model_names["default"] == "qwen-vl"


def test_only_models_are_required_and_a_bare_url_is_a_backend() -> None:
    config = parse_config(MINIMAL)
    assert config == GatewayConfig(models=config.models)
    (backend,) = config.backends
    assert (backend.id, backend.url, backend.model, backend.version) == ("h:1", "http://h:1", "m", "1")
    assert not config.keys_required


def test_a_list_of_urls_is_a_model() -> None:
    assert (
        parse_config("models: {m: ['http://h:1', 'http://h:2']}").backends
        == parse_config("models: {m: {backends: ['http://h:1', 'http://h:2']}}").backends
    )


def test_names_may_hold_dots_and_versions_may_be_numbers() -> None:
    config = parse_config("models: {qwen2.5-vl: {versions: {1.5: {backends: [http://h:1]}}}}")
    assert config.backends[0].model == "qwen2.5-vl"
    assert config.backends[0].version == "1.5"


def test_every_problem_is_reported_with_its_own_line() -> None:
    text = """\
models:
  a:
    fallbak: b
    backends: [http://h:1]
    versions:
      1:
        weight: -1
listen:
  port: 99999
  host: on
  max_body_bytes: 3 apples
cache:
  ttl_s: soon
tenants: [acme]
listne: 1
"""
    assert problems_of(text) == [
        "g.yaml:3: models.a.fallbak: there is no such setting; did you mean fallback?",
        "g.yaml:7: models.a.versions.1.weight: is -1; it must be at least 0",
        "g.yaml:9: listen.port: is 99999; it must be at most 65535",
        "g.yaml:10: listen.host: is 'on', which YAML reads as true or false; put it in quotes",
        "g.yaml:11: listen.max_body_bytes: is 3 apples; it must be a size such as 65536, 64KiB or 2GiB",
        "g.yaml:13: cache.ttl_s: is soon; it must be a number",
        "g.yaml:14: tenants: is a list; write `name: value` lines",
        "g.yaml:15: listne: there is no such setting; did you mean listen?",
    ]


def test_what_a_part_refuses_itself_gets_the_line_of_its_setting() -> None:
    assert problems_of(MINIMAL + "queue:\n  max_requests: 0\nretries:\n\n  max_attempts: 0\n") == [
        "g.yaml:3: queue.max_requests: is 0; it must be above 0",
        "g.yaml:6: retries.max_attempts: is 0; it must be at least 1 (the first attempt)",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models: {a: {backends: [http://h:1], fallback: b}}", "there is no model b; known: a"),
        ("models: {gemma: {backends: [http://h:1], fallback: gema}}", "did you mean gemma?"),
        ("models: {a: {backends: [http://h:1], fallback: a}}", "goes in a circle: a -> a"),
        ("models: {a: {backends: [http://h:1], smart: [{to: a}]}}", "is the model itself"),
        ("models: {a: {}}", "has no backend"),
        ("models: {}", "is empty"),
        ("models: {a: [http://h:1], b: [http://h:1]}", "the id h:1 is already that of models.a.backends.0"),
        ("models: {a: [http://h:1], b: {backends: [http://h:2], aliases: [a]}}", "a is already a model"),
        ("models: {a: {backends: [http://h:1], versions: {1: {backends: [http://h:2]}}}}", "has both"),
        ("models: {a: {versions: {1: {weight: 0, backends: [http://h:1]}}}}", "no version with a weight"),
        ("models: {a: {versions: {1: {weight: 1}, 2: {backends: [http://h:1]}}}}", "has a weight and no backend"),
        ("models: {a: [http://h:1/v1]}", "remove what follows host and port"),
        ("models: {a: [ftp://h]}", "write http://host:port"),
        ("models: {a: ['http://h:x']}", "malformed URL"),
        ("models: {a: ['http://[::1']}", "malformed URL"),
        (MINIMAL + "tenants: {t: {models: [x]}}\nstate: s.db", "there is no model x"),
        (MINIMAL + "tenants: {t: {}}", "their keys live in the state file"),
        (MINIMAL + "auth: {mode: keys}", "keys live in the state file"),
        (MINIMAL + "auth: {mode: key}", "it must be one of auto, keys, off; did you mean keys?"),
        (MINIMAL + "default_model: x", "there is no model x"),
        (MINIMAL + "state: /nowhere/s.db", "there is no directory /nowhere"),
        (MINIMAL + "listen: {tls: {certificate: c.pem, key: k.pem}}", "there is no file"),
        (MINIMAL + "listen: {tls: {certificate: c.pem}}", "listen.tls: key is missing; add it"),
        (MINIMAL + "listen: {max_body_bytes: 2GiB, max_bytes_in_flight: 1GiB}", "could never be admitted"),
        (MINIMAL + "cache: {disk_bytes: 1MiB}", "beside the state file"),
        (MINIMAL + 'listen: {port: "80"}', "without quotes"),
        (MINIMAL + "listen: {port: 80.5}", "whole number"),
        (MINIMAL + "cache: {ttl_s: .inf}", "must be a number"),
        (MINIMAL + "cache: {ttl_s: inf}", "must be finite"),
        (MINIMAL + "cache: {enabled: maybe}", "write true or false"),
        (MINIMAL + "cache: {ttl_s: }", "is empty"),
        (MINIMAL + "cache: {ttl_s: [1]}", "is a list; write one value"),
        (MINIMAL + "cache: 3", "write `name: value` lines"),
        (MINIMAL + "cache: {ttl_s: 1, ttl_s: 2}", "ttl_s is given twice, first in line 2"),
        (MINIMAL + "? [a]\n: b", "a name must be plain text"),
        (MINIMAL + "<<: [1]", "expected a mapping"),
        (MINIMAL + "cache: &x [*x]", "is a list"),
        (MINIMAL + "admin: {key: short}", "at least 16"),
        ("models: {a: {backends: [http://h:1], pricing: qwen2_5vl}}", "did you mean qwen2_5_vl?"),
        ("models: [", "this is not valid YAML"),
        ("models: {a: ${B}}", 'write "${NAME}" with quotes'),
        ("a\x00b", "this is not valid YAML"),
        ("", "is empty; it needs at least `models`"),
        ("models: {a: [http://h:1]}\n---\nb: 1", "expected a single document"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(text: str, found: str) -> None:
    assert found in "\n".join(problems_of(text))


def test_values_come_from_the_environment() -> None:
    text = (
        MINIMAL
        + "listen: {port: '${PORT}'}\nadmin:\n  key: ${KEY}\nstate: '${DIR:-.}/a$$b.db'\ncache: {enabled: '${C:-no}'}\n"
    )
    config = parse_config(text, environment={"PORT": "90", "KEY": "k" * 16}, directory=Path("/tmp"))
    assert config.listen.port == 90
    assert config.admin.key == "k" * 16
    assert config.state == Path("/tmp/a$b.db")
    assert not config.cache.enabled


def test_a_missing_variable_names_itself_and_an_empty_one_is_no_secret_at_all() -> None:
    text = MINIMAL + "admin:\n  key: ${KEY}\n"
    assert problems_of(text) == [
        "g.yaml:3: admin.key: the environment has no KEY; set it, or give a default: ${KEY:-...}"
    ]
    assert parse_config(text, environment={"KEY": ""}).admin.key is None


def test_secrets_appear_in_no_message_and_no_repr() -> None:
    text = MINIMAL + "admin:\n  key: ${KEY}\nlisten: {port: '${PORT}'}\n"
    assert "hunter2" not in "".join(problems_of(text, {"KEY": "hunter2", "PORT": "hunter2"}))
    text = "models: {m: [{url: http://h:1, api_key: hunter2}]}\nadmin: {key: hunter2hunter2hunter2}"
    config = parse_config(text)
    assert config.backends[0].api_key == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.backends)
    assert "hunter2" not in "".join(problems_of("models: {m: ['http://u:hunter2@h:1']}"))


def test_unreadable_files_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read \(No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_config(tmp_path / "binary.yaml")


def test_merge_keys_share_settings_between_models() -> None:
    config = parse_config(
        "models:\n  a: &a {backends: [http://h:1], pricing: idefics3}\n  b: {<<: *a, backends: [http://h:2]}"
    )
    assert config.models["b"].pricing.family == "idefics3"
    assert config.models["b"].specs()[0].url == "http://h:2"
