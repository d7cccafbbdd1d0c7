"""docs/reference/http-api.md names every field, route, error code and flag there is; messages name only flags there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foveal.core import errors
from foveal.protocol.chat import ChatCompletionRequest
from foveal.protocol.completions import CompletionRequest
from foveal.protocol.openapi import openapi_document

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "http-api.md").read_text()
CLI_PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()


@pytest.mark.parametrize("request_type", [ChatCompletionRequest, CompletionRequest])
def test_every_request_field_is_documented(request_type: type[ChatCompletionRequest | CompletionRequest]) -> None:
    assert [name for name in request_type.__struct_encode_fields__ if f"`{name}`" not in PAGE] == []


def test_every_route_is_documented() -> None:
    for path, operations in openapi_document("1")["paths"].items():
        assert any(f"`{method.upper()} {path}`" in PAGE for method in operations), path


def test_every_error_code_is_documented() -> None:
    codes = {error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")}
    assert [code for code in codes | {"engine_dead", "body_timeout", "not_found"} if f"`{code}`" not in PAGE] == []


def test_the_flags_in_the_page_and_in_the_server_s_messages_exist() -> None:
    sources = [path.read_text() for path in (ROOT / "src" / "foveal" / "engine" / "server").glob("*.py")]
    used = {flag for text in [PAGE, *sources] for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert [flag for flag in sorted(used) if f"`{flag}" not in CLI_PAGE and f"/{flag}" not in CLI_PAGE] == []
