"""The HTTP application over one engine. `create_app` is the composition root of the server; `runner` runs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from foveal.core.clock import Clock, MonotonicClock
from foveal.core.errors import EngineDeadError, OverloadedError, RequestTimeoutError
from foveal.engine.api import EngineClient
from foveal.engine.server.body import read_body
from foveal.engine.server.chat import prepare_chat
from foveal.engine.server.completions import prepare_completion
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.context import ServerContext
from foveal.engine.server.exchange import Exchange
from foveal.engine.server.generation import Job, run_job
from foveal.engine.server.limits import Admission, Lease
from foveal.engine.server.middleware import RequestMiddleware
from foveal.engine.server.pages import page_routes
from foveal.engine.server.recorder import RequestRecorder, RequestTimer, engine_snapshot
from foveal.engine.server.request_trace import traced
from foveal.observability.metrics import Metrics
from foveal.observability.tracing.tracer import Tracer
from foveal.protocol.remote_image.image_fetcher import ImageFetcher
from foveal.protocol.route_error import route_error_body

__all__ = ["create_app", "server_version"]

Prepare = Callable[[ServerContext, Scope, bytes, Lease, RequestTimer], Awaitable[Job]]


def create_app(
    engine: EngineClient,
    config: ServerConfig | None = None,
    clock: Clock | None = None,
    *,
    fetcher: ImageFetcher | None = None,
    wall_time: Callable[[], float] = time.time,
    tracer: Tracer | None = None,
) -> Starlette:
    """The application; its ServerContext is `app.state.context`. Call it on the event loop that will serve.

    The engine may still be loading: requests get 503 until `engine.is_ready`.
    """
    config = config or ServerConfig()
    clock = clock or MonotonicClock()
    admission = Admission(config)
    metrics = Metrics(
        _label_model(engine, config),
        lambda: engine_snapshot(engine.stats(), admission.num_requests, admission.num_bytes),
    )
    context = ServerContext(
        engine=engine,
        config=config,
        clock=clock,
        admission=admission,
        fetcher=fetcher or ImageFetcher(config.fetch, config.max_image_bytes),
        metrics=metrics,
        recorder=RequestRecorder(metrics, clock),
        tracer=tracer,
        wall_time=wall_time,
        started_s=clock.now_s(),
    )
    routes = [
        Route("/v1/chat/completions", GenerationEndpoint(context, prepare_chat), methods=["POST"]),
        Route("/v1/completions", GenerationEndpoint(context, prepare_completion), methods=["POST"]),
        *page_routes(context, server_version()),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(RequestMiddleware, context=context)],
        exception_handlers={HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    app.state.context = context
    return app


def server_version() -> str:
    """Of the installed package; "0" where only the source tree is on the path."""
    try:
        return package_version("foveal")
    except PackageNotFoundError:
        return "0"


class GenerationEndpoint:
    """ASGI endpoint: admit, read the body, prepare, run. All errors are raised to the middleware."""

    def __init__(self, context: ServerContext, prepare: Prepare) -> None:
        self._context = context
        self._prepare = prepare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context
        with context.admission.enter() as lease:
            try:
                context.check_ready()
                exchange = Exchange(scope, receive, send)
                exchange.body = await read_body(scope, receive, context.config, lease)
                async with exchange.cancelled_on_disconnect():
                    await self._run(exchange, lease)
            except asyncio.CancelledError:
                if not context.admission.in_flight.cut_off:
                    raise
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
                raise OverloadedError(
                    "the server shut down before the request was complete; retry, so that another replica answers",
                    retry_after_s=context.config.retry_after_s,
                ) from None

    async def _run(self, exchange: Exchange, lease: Lease) -> None:
        context = self._context
        timer = context.recorder.start()
        timeout_s = context.config.request_timeout_s
        try:
            with traced(context, exchange.scope, timer):
                async with asyncio.timeout(timeout_s):
                    job = await self._prepare(context, exchange.scope, exchange.body, lease, timer)
                    exchange.body = b""  # `job` has the decoded images: do not hold them twice while it runs
                    await run_job(context, exchange, job, timer)
        except TimeoutError:
            raise RequestTimeoutError(
                f"the request was not complete after {timeout_s:g} s; lower max_tokens, send smaller images or raise "
                "--request-timeout"
            ) from None


def _label_model(engine: EngineClient, config: ServerConfig) -> str:
    if config.served_model_names:
        return config.served_model_names[0]
    try:
        return engine.model.id
    except EngineDeadError:  # still loading
        return "unknown"


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors (unknown route or method) in the shape of all others."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    body = route_error_body(error.status_code, request.method, request.url.path, allowed, str(error.detail))
    return Response(
        msgspec.json.encode(body), error.status_code, dict(error.headers or {}), media_type="application/json"
    )
