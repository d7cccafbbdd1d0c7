"""The JSON schema says what the reader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml  # type: ignore[import-untyped]

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.load import parse_config
from foveal.gateway.config.schema import config_schema

ROOT = Path(__file__).parents[4]
VALIDATOR = jsonschema_rs.validator_for(config_schema())


def test_the_example_fits_the_schema() -> None:
    VALIDATOR.validate(yaml.safe_load((ROOT / "examples" / "gateway.yaml").read_text()))


def test_every_object_refuses_what_it_does_not_know() -> None:
    for name, definition in [("root", config_schema()), *config_schema()["$defs"].items()]:
        record: dict[str, Any] = definition["anyOf"][0] if "anyOf" in definition else definition
        assert record["additionalProperties"] is False, name


@pytest.mark.parametrize(
    "text",
    [
        "models: {a: [http://h:1]}",
        "models: {a: {backends: [{url: http://h:1, max_in_flight: 3}], pricing: llava}}",
        "models: {a: [http://h:1]}\nlisten: {port: '${PORT:-1}', max_body_bytes: 64MiB}",
        "models: {a: [http://h:1]}\ntenants:\nauth: {mode: keys}\nstate: s.db",
        "models: {a: [http://h:1]}\ncache: {ttl_s: -1}",
        "models: {a: [http://h:1]}\ncache: {ttl: 1}",
        "models: {a: {versions: {1: {weight: -1, backends: [http://h:1]}}}}",
        "models: {a: [http://h:1]}\ntenants: {t: {best_priority: P9}}\nstate: s.db",
        "models: {a: [http://h:1]}\nremote_images: fetsch",
        "models: {a: [http://h:1]}\nlisten: {port: 70000}",
        "models: {a: [http://h:1]}\nlisten: {max_body_bytes: 3 apples}",
        "models: [a]",
        "listen: {}",
    ],
)
def test_schema_and_reader_agree_on_what_is_right(text: str) -> None:
    try:
        parse_config(text, environment={})
        readable = True
    except ConfigurationError:
        readable = False
    assert VALIDATOR.is_valid(json.loads(json.dumps(yaml.safe_load(text)))) == readable


def test_descriptions_and_defaults_come_from_the_declarations() -> None:
    listen = config_schema()["$defs"]["ListenConfig"]["properties"]
    assert listen["port"]["default"] == 8080
    assert listen["host"]["description"] == "Address to listen on; 0.0.0.0 for all."
    assert "max_body_bytes" in listen, "settings of the base class are there too"
