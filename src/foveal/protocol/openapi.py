"""The OpenAPI 3.1 document, made from the very types that requests are decoded into."""

from __future__ import annotations

from typing import Any

import msgspec

from foveal.protocol.chat import ChatCompletionRequest
from foveal.protocol.chat_response import ChatChunk, ChatCompletion
from foveal.protocol.completion_response import Completion, CompletionChunk
from foveal.protocol.completions import CompletionRequest
from foveal.protocol.content import ChatMessage
from foveal.protocol.error_body import ErrorBody
from foveal.protocol.model_list import ModelList, ModelObject
from foveal.protocol.server_status import Health, Status, Version

__all__ = ["openapi_document"]

_TYPES: list[Any] = [
    ChatCompletionRequest,
    ChatCompletion,
    ChatChunk,
    CompletionRequest,
    Completion,
    CompletionChunk,
    ModelList,
    ModelObject,
    ErrorBody,
    Health,
    Status,
    Version,
]

_ERRORS = {
    400: "A value is missing, of a wrong type, out of range, or not supported.",
    401: "The API key is missing or wrong (only where the server has one).",
    404: "No such model.",
    408: "The body did not arrive in time.",
    413: "The body or an image is larger than the limit.",
    503: "Overloaded, loading, draining or restarting; see Retry-After.",
    504: "The request took longer than the server's time-out.",
}


_TOKEN_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_TEXT = {"type": "string", "minLength": 1}
_NULL = {"type": "null"}
_PRIORITY: list[dict[str, Any]] = [{"type": "integer", "minimum": 0, "maximum": 2}, {"enum": ["P0", "P1", "P2"]}, _NULL]
# Fields whose union types say less than the checks behind them.
_UNIONS: dict[tuple[type, str], list[dict[str, Any]]] = {
    (ChatCompletionRequest, "priority"): _PRIORITY,
    (CompletionRequest, "priority"): _PRIORITY,
    (ChatCompletionRequest, "tool_choice"): [{"enum": ["auto", "none"]}, _NULL],
    (CompletionRequest, "prompt"): [
        _TEXT,
        {"type": "array", "minItems": 1, "items": _TEXT},
        _TOKEN_IDS,
        {"type": "array", "minItems": 1, "items": _TOKEN_IDS},
    ],
    # Answers (with tool calls) and tool results may be empty or null as well; nobody needs to be told.
    (ChatMessage, "content"): [
        _TEXT,
        {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/ContentPart"}},
    ],
}


def openapi_document(version: str) -> dict[str, Any]:
    """`version` is the server's. The result is JSON-compatible and independent of the loaded model."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    _refine(schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Foveal", "version": version, "description": "OpenAI-compatible API of one Foveal engine."},
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"ApiKey": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"ApiKey": []}],
    }


def _refine(schemas: dict[str, Any]) -> None:
    parts = schemas["ChatMessage"]["properties"]["content"]["anyOf"][1]["items"]
    schemas["ContentPart"] = parts
    for (owner, name), union in _UNIONS.items():
        schemas[owner.__name__]["properties"][name]["anyOf"] = union
    message = schemas["ChatMessage"]
    message["required"] = ["role", "content"]
    message["properties"]["content"].pop("default", None)
    schemas["TextPart"]["properties"]["text"]["minLength"] = 1
    schemas["ResponseFormat"]["if"] = {"properties": {"type": {"const": "json_schema"}}, "required": ["type"]}
    schemas["ResponseFormat"]["then"] = {"properties": {"json_schema": {"type": "object"}}, "required": ["json_schema"]}


def _paths() -> dict[str, Any]:
    model_id = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": {
            "post": _generation("createChatCompletion", ChatCompletionRequest, ChatCompletion, ChatChunk)
        },
        "/v1/completions": {"post": _generation("createCompletion", CompletionRequest, Completion, CompletionChunk)},
        "/v1/models": {"get": _get("listModels", _json("The served model.", ModelList), 401, 503)},
        "/v1/models/{model_id}": {
            "get": _get("retrieveModel", _json("The model.", ModelObject), 400, 401, 404, 503)
            | {"parameters": [model_id]}
        },
        "/live": {"get": _get("live", _json("The process answers.", Status))},
        "/ready": {"get": _get("ready", _json("Requests are accepted.", Status), 503)},
        "/health": {
            "get": _get("health", _json("Ready.", Health))
            | {"responses": {"200": _json("Ready.", Health), "503": _json("Not ready; the body says why.", Health)}}
        },
        "/version": {"get": _get("version", _json("The server's version.", Version))},
        "/metrics": {
            "get": _get(
                "metrics",
                {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            )
        },
        "/openapi.json": {
            "get": _get(
                "openapi",
                {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}},
            )
        },
    }


def _generation(operation_id: str, request: type, answer: type, chunk: type) -> dict[str, Any]:
    ok = _json("The answer, or with `stream: true` server-sent events that each hold a chunk.", answer)
    # As OpenAPI 3.2 describes event streams: each event is an object of its fields.
    payload = {"contentMediaType": "application/json", "contentSchema": _ref(chunk)}
    data = {"type": "string", "anyOf": [payload, {"const": "[DONE]"}], "description": f"A {chunk.__name__} or the end."}
    ok["content"]["text/event-stream"] = {
        "schema": {"type": "object", "required": ["data"], "properties": {"data": data}}
    }
    ok["headers"] = {
        "X-Request-Id": {"schema": {"type": "string"}},
        "Server-Timing": {"schema": {"type": "string"}, "description": "The waterfall to the first token, in ms."},
        "X-Foveal-Warning": {"schema": {"type": "string"}, "description": "Fields that were ignored."},
    }
    return {
        "operationId": operation_id,
        "parameters": [
            {
                "name": "X-Priority",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "enum": ["P0", "P1", "P2"]},
            },
            {
                "name": "X-Request-Id",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
            },
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {"200": ok, **_errors(*_ERRORS)},
    }


def _get(operation_id: str, ok: dict[str, Any], *errors: int) -> dict[str, Any]:
    return {"operationId": operation_id, "responses": {"200": ok, **_errors(*errors)}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _json(_ERRORS[status], ErrorBody) for status in statuses}


def _json(description: str, schema: type) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(schema: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema.__name__}"}
