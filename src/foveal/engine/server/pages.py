"""The small endpoints: models, probes, version, metrics, the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foveal.core.errors import EngineDeadError
from foveal.engine.server.context import ServerContext
from foveal.protocol.model_list import ModelList, ModelObject
from foveal.protocol.openapi import openapi_document
from foveal.protocol.server_status import Health, Status, Version

__all__ = ["page_routes"]


def page_routes(context: ServerContext, version: str) -> list[Route]:
    """All GET routes. Probes never touch the engine process: they read what is known here."""
    document = msgspec.json.encode(openapi_document(version))

    async def models(_: Request) -> Response:
        return _json(ModelList(_models(context)))

    async def model(request: Request) -> Response:
        name = request.path_params["model_id"]
        context.check_model(name)
        return _json(next(entry for entry in _models(context) if entry.id == name))

    async def live(_: Request) -> Response:
        return _json(Status("live"))

    async def ready(_: Request) -> Response:
        status = context.status
        return _json(Status(status), 200 if status == "ready" else 503)

    async def health(_: Request) -> Response:
        body = _health(context, version)
        return _json(body, 200 if body.status == "ready" else 503)

    async def version_page(_: Request) -> Response:
        return _json(Version(version))

    async def metrics(_: Request) -> Response:
        return Response(context.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    pages: dict[str, Callable[[Request], object]] = {
        "/v1/models": models,
        "/v1/models/{model_id:path}": model,
        "/live": live,
        "/ready": ready,
        "/health": health,
        "/version": version_page,
        "/metrics": metrics,
        "/openapi.json": openapi,
    }
    return [Route(path, page, methods=["GET"]) for path, page in pages.items()]


def _models(context: ServerContext) -> list[ModelObject]:
    """Raises OverloadedError while the model is not known yet."""
    try:
        card, names = context.engine.model, context.model_names
    except EngineDeadError:
        context.check_ready()
        raise
    return [
        ModelObject(
            id=name,
            created=card.created_s,
            root=card.root,
            max_model_len=card.max_model_len,
            supports_images=card.supports_images,
            costs=card.costs,
        )
        for name in names
    ]


def _health(context: ServerContext, version: str) -> Health:
    stats = context.engine.stats()
    try:
        model = context.model_names[0]
    except EngineDeadError:
        model = None
    return Health(
        status=context.status,
        version=version,
        uptime_s=round(context.clock.now_s() - context.started_s, 3),
        model=model,
        requests_in_flight=context.admission.num_requests,
        body_bytes_in_flight=context.admission.num_bytes,
        requests_running=stats.num_running,
        requests_waiting=stats.num_waiting,
        kv_cache_usage_perc=stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0,
    )


def _json(payload: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(payload), status, media_type="application/json")
