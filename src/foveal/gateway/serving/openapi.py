"""The gateway's OpenAPI document: the engine's routes, with what a gateway adds to them."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from foveal.gateway.serving.page_types import FeedbackRequest, GatewayHealth, GatewayModel, GatewayModelList, Recorded
from foveal.protocol.openapi import openapi_document

__all__ = ["gateway_openapi_document"]

_ERRORS = {
    "429": "A limit of the tenant is reached; see Retry-After.",
    "500": "A bug, of the gateway or of the backend.",
    "502": "The backend broke off or answered what is no answer, and no other one could be tried.",
}


def gateway_openapi_document(version: str) -> dict[str, Any]:
    """JSON-compatible; independent of the configuration."""
    document = copy.deepcopy(openapi_document(version))
    document["info"]["description"] = "OpenAI-compatible API of a Foveal gateway."
    _, schemas = msgspec.json.schema_components(
        [FeedbackRequest, Recorded, GatewayHealth, GatewayModel, GatewayModelList],
        ref_template="#/components/schemas/{name}",
    )
    document["components"]["schemas"] |= schemas
    paths = document["paths"]
    for path in ("/v1/chat/completions", "/v1/completions"):
        responses = paths[path]["post"]["responses"]
        for status, text in _ERRORS.items():
            responses[status] = {
                "description": text,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
            }
        responses["200"]["headers"] |= {
            "X-Foveal-Served-Model": _header("The model that answered, where it is not the one asked for."),
            "X-Foveal-Fallback": _header("Why: primary_down, queue_late, queue_full or failed."),
            "X-Foveal-Cache": _header("hit or joined, for an answer that was not made for this request."),
        }
    _answers(paths["/v1/models"]["get"], "GatewayModelList")
    _answers(paths["/v1/models/{model_id}"]["get"], "GatewayModel")
    for status in ("200", "503"):
        _answers(paths["/health"]["get"], "GatewayHealth", status)
    paths["/v1/feedback"] = {"post": _feedback(paths["/v1/completions"]["post"]["responses"])}
    return document


def _feedback(errors: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": "giveFeedback",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FeedbackRequest"}}},
        },
        "responses": {
            "200": {
                "description": "Recorded; a second one for the same request replaces it.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Recorded"}}},
            },
            **{status: errors[status] for status in ("400", "401", "408", "413", "503")},
        },
    }


def _answers(operation: dict[str, Any], name: str, status: str = "200") -> None:
    operation["responses"][status]["content"]["application/json"]["schema"] = {"$ref": f"#/components/schemas/{name}"}


def _header(text: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "description": text}
