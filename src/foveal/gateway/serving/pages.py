"""Everything that is no generation: models, probes, metrics, feedback, the OpenAPI document."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from foveal.core.errors import InvalidRequestError, ModelNotFoundError, PayloadTooLargeError, RequestError
from foveal.gateway.serving.admin import Administration, admin_routes
from foveal.gateway.serving.error_answers import error_answer
from foveal.gateway.serving.headers import SECURITY_HEADERS, request_id_of
from foveal.gateway.serving.model_choice import visible_models
from foveal.gateway.serving.openapi import gateway_openapi_document
from foveal.gateway.serving.page_types import (
    BackendStatus,
    FeedbackRequest,
    GatewayHealth,
    GatewayModel,
    GatewayModelList,
    Recorded,
)
from foveal.gateway.tenancy.tenant import Tenant
from foveal.observability.logs import get_logger
from foveal.protocol.decoding import explain_validation_error
from foveal.protocol.route_error import route_error_body
from foveal.protocol.server_status import ServerStatus, Status, Version

__all__ = ["create_pages"]

Page = Callable[[Request], Awaitable[Response]]

_log = get_logger("foveal.gateway")
_feedback_decoder = msgspec.json.Decoder(FeedbackRequest)


def create_pages(gateway: Administration, version: str) -> Starlette:
    """The ASGI application for all routes but the hot ones."""
    pages = _Pages(gateway, version)
    routes = [
        *_get(
            {
                "/v1/models": pages.models,
                "/v1/models/{model_id:path}": pages.model,
                "/live": pages.live,
                "/ready": pages.ready,
                "/health": pages.health,
                "/version": pages.version,
                "/metrics": pages.metrics,
                "/openapi.json": pages.openapi,
            }
        ),
        Route("/v1/feedback", _guarded(pages.feedback), methods=["POST"]),
        *[Route(path, _guarded(page), methods=[method]) for method, path, page in admin_routes(gateway)],
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    app.router.redirect_slashes = False
    return app


class _Pages:
    def __init__(self, gateway: Administration, version: str) -> None:
        self._gateway = gateway
        self._version = version
        self._document = msgspec.json.encode(gateway_openapi_document(version))
        self._started_s = gateway.parts.clock.now_s()
        self._created_s = int(time.time())

    async def models(self, request: Request) -> Response:
        tenant = await self._tenant(request)
        names = visible_models(self._gateway.parts.config, tenant)
        return _json(GatewayModelList([self._model(name) for name in names]))

    async def model(self, request: Request) -> Response:
        tenant = await self._tenant(request)
        name, names = request.path_params["model_id"], visible_models(self._gateway.parts.config, tenant)
        if name not in names:
            raise ModelNotFoundError(
                f"model {name[:200]!r} does not exist here; available: {', '.join(names) or 'none'}", param="model"
            )
        return _json(self._model(name))

    async def live(self, _: Request) -> Response:
        return _json(Status("live"))

    async def ready(self, _: Request) -> Response:
        status = self._status()
        return _json(Status(status), 200 if status == "ready" else 503)

    async def health(self, _: Request) -> Response:
        parts, status = self._gateway.parts, self._status()
        body = GatewayHealth(
            status=status,
            version=self._version,
            uptime_s=round(parts.clock.now_s() - self._started_s, 3),
            requests_in_flight=parts.in_flight.num_requests,
            requests_waiting=len(parts.dispatcher),
            body_bytes_in_flight=self._gateway.body_bytes,
            backends=[
                BackendStatus(
                    load.spec.id,
                    load.spec.model,
                    load.spec.version,
                    load.state.value,
                    load.in_flight,
                    load.spec.max_in_flight,
                )
                for load in parts.pool.loads(parts.clock.now_s())
            ],
        )
        return _json(body, 200 if status == "ready" else 503)

    async def version(self, _: Request) -> Response:
        return _json(Version(self._version))

    async def metrics(self, _: Request) -> Response:
        return Response(self._gateway.parts.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, _: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def feedback(self, request: Request) -> Response:
        tenant = await self._tenant(request)
        parts = self._gateway.parts
        body = await request.body()
        limit = parts.config.admin.max_feedback_bytes
        if len(body) > limit:
            raise PayloadTooLargeError(
                f"the feedback has {len(body):,} bytes; the limit is {limit:,}. Shorten the comment"
            )
        try:
            given = _feedback_decoder.decode(body)
        except msgspec.ValidationError as error:
            raise explain_validation_error(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError(
                "the body is not valid JSON in UTF-8; send an object with request_id and score"
            ) from error
        stored = parts.tenancy.feedback.add(tenant.id, given.request_id, given.score, given.comment, time.time())
        model = stored.origin.model if stored.origin else "unknown"
        parts.metrics.count("feedback_total", model, "up" if given.score >= 0 else "down")
        return _json(Recorded(given.request_id, stored.origin is not None))

    async def _tenant(self, request: Request) -> Tenant:
        return await self._gateway.parts.tenancy.authenticate(dict(request.headers.raw))

    def _status(self) -> ServerStatus:
        """Ready when some backend takes requests: a gateway that could only say 503 should get no traffic."""
        parts = self._gateway.parts
        if parts.in_flight.draining:
            return "draining"
        now_s = parts.clock.now_s()
        return "ready" if any(parts.pool.is_available(model, now_s) for model in parts.pool.models) else "loading"

    def _model(self, name: str) -> GatewayModel:
        facts = self._gateway.facts.get(self._gateway.parts.config.model_names[name])
        if facts is None:
            return GatewayModel(name, self._created_s)
        created = facts.created if isinstance(facts.created, int) else self._created_s
        return GatewayModel(
            id=name,
            created=created,
            root=facts.root,
            parent=facts.parent,
            max_model_len=facts.max_model_len,
            supports_images=facts.supports_images,
        )


def _get(pages: dict[str, Page]) -> list[Route]:
    return [Route(path, _guarded(page), methods=["GET"]) for path, page in pages.items()]


def _guarded(page: Page) -> Page:
    """Every error in the shape of all others, every answer with the security headers."""

    async def guarded(request: Request) -> Response:
        try:
            response = await page(request)
        except Exception as error:
            response = _error_response(error)
        for name, value in SECURITY_HEADERS:
            response.headers[name.decode()] = value.decode()
        response.headers["cache-control"] = "no-store"
        given = request_id_of(dict(request.headers.raw))
        if given is not None:
            response.headers["x-request-id"] = given.decode()
        return response

    return guarded


def _error_response(error: Exception) -> Response:
    answer = error_answer(error)
    if not isinstance(error, RequestError):
        _log.error("unexpected error on a page", exc_info=error)
    return Response(answer.body, answer.status, {name.decode(): value.decode() for name, value in answer.headers})


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: unknown route or method."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    body = route_error_body(error.status_code, request.method, request.url.path, allowed, str(error.detail))
    headers = {**dict(error.headers or {}), **{name.decode(): value.decode() for name, value in SECURITY_HEADERS}}
    return Response(msgspec.json.encode(body), error.status_code, headers, media_type="application/json")


def _json(payload: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(payload), status, media_type="application/json")
