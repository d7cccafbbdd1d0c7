"""gateway.yaml -> GatewayConfig."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.check import check
from foveal.gateway.config.field_type import field_type
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.problems import Problems
from foveal.gateway.config.reader import Reader

__all__ = ["load_config", "parse_config"]


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> GatewayConfig:
    """Reads and checks the file. ${NAME} in values is taken from `environment` (the process's own by default).

    Raises ConfigurationError with one line per problem: `gateway.yaml:12: models.a.weight: is '-1'; it must be at least 0`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return parse_config(text, file=str(path), directory=path.parent, environment=environment)


def parse_config(
    text: str, *, file: str = "config", directory: Path = Path(), environment: Mapping[str, str] | None = None
) -> GatewayConfig:
    """As load_config, from text. `directory` is where relative paths start. Raises ConfigurationError."""
    problems = Problems(file)
    root = _compose(text, problems)
    if root is None:
        raise ConfigurationError(
            f"{file} is empty; it needs at least `models` with one backend (see examples/gateway.yaml)"
        )
    reader = Reader(problems, os.environ if environment is None else environment, directory)
    config = reader.read(root, field_type(GatewayConfig), ())
    problems.raise_if_any()
    assert isinstance(config, GatewayConfig)  # INVALID comes with a problem
    check(config, problems)
    problems.raise_if_any()
    return config


def _compose(text: str, problems: Problems) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        hint = '; inside { } and [ ] write "${NAME}" with quotes' if "${" in (text.splitlines() or [""])[line] else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        problems.add((), f"this is not valid YAML: {said}{hint}", line + 1)
        problems.raise_if_any()
        raise
    except yaml.YAMLError as error:
        problems.add((), f"this is not valid YAML: {' '.join(str(error).split())}")
        problems.raise_if_any()
        raise
    return node
