"""foveal keys, foveal gateway-config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foveal.cli.gateway_config import command as gateway_config
from foveal.cli.keys import command as keys
from foveal.core.errors import ConfigurationError

CONFIG = "models: {m: [{url: 'http://h:1', api_key: '${BACKEND_KEY}'}]}\nstate: s.db\ntenants: {acme: {}}\n"


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    return str(tmp_path / "gateway.yaml")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(keys, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_made_listed_and_revoked_without_the_gateway_s_secrets(config: str) -> None:
    made = json.loads(run("create", config, "--tenant", "acme", "--name", "ci", "--expires-days", "1", "--json"))
    assert made["key"].startswith(f"fvl_{made['id']}_")
    (listed,) = json.loads(run("list", config, "--json"))
    assert (listed["tenant"], listed["name"], listed["state"].split()[0]) == ("acme", "ci", "works")
    assert "key" not in listed
    assert made["id"] in run("revoke", config, made["id"])
    assert json.loads(run("list", config, "--json"))[0]["state"].startswith("revoked")
    assert made["key"].split("_", 2)[2] not in run("list", config)


def test_the_key_alone_is_on_standard_output(config: str) -> None:
    assert run("create", config, "--tenant", "acme").count("\n") == 1


@pytest.mark.parametrize(
    ("text", "arguments", "found"),
    [
        (CONFIG, ["create", "{}", "--tenant", "acne"], "has no tenant acne; known: acme"),
        (CONFIG, ["revoke", "{}", "nope"], "there is no key nope"),
        ("models: {m: ['http://h:1']}\n", ["list", "{}"], "names no state file"),
        (CONFIG, ["list", "nowhere.db"], "there is no file nowhere.db"),
    ],
)
def test_a_mistake_says_what_to_do(tmp_path: Path, text: str, arguments: list[str], found: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=found):
        run(*(argument.format(path) for argument in arguments))


def test_check_tells_what_was_read_and_diff_what_would_change(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_KEY", "sesame")
    runner = CliRunner()
    checked = runner.invoke(gateway_config, ["check", config, "--json"], catch_exceptions=False)
    assert json.loads(checked.stdout) == {"models": 1, "backends": 1, "tenants": 1, "keys_required": True}
    after = Path(config).with_name("next.yaml")
    after.write_text(CONFIG + "listen: {port: 1}\n")
    compared = runner.invoke(gateway_config, ["diff", config, str(after)], catch_exceptions=False)
    assert compared.stdout == "listen.port: 8080 -> 1  (needs a restart)\n"
    assert json.loads(runner.invoke(gateway_config, ["schema"]).stdout)["required"] == ["models"]


def test_check_reports_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("models: {m: []}\nlistn: 1\ncash: 2\n")
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(gateway_config, ["check", str(path)], catch_exceptions=False)
    assert str(caught.value).count("gateway.yaml:") == 2
