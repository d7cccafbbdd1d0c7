"""/admin: for the operator, behind a key of its own. Keys, version weights, reload, feedback."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foveal.core.errors import ConfigurationError, InvalidRequestError, ModelNotFoundError
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.probe import BackendFacts
from foveal.gateway.tenancy.api_key import KeyRecord
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.protocol.decoding import explain_validation_error

__all__ = ["Administration", "admin_routes"]

Page = Callable[[Request], Awaitable[Response]]


class Administration(Protocol):
    """What the pages need of the gateway."""

    @property
    def parts(self) -> Parts: ...

    @property
    def facts(self) -> Mapping[str, BackendFacts]:
        """What backends say of themselves, by model."""
        ...

    @property
    def body_bytes(self) -> int:
        """Held for bodies now."""
        ...

    async def reload(self) -> None:
        """Read the configuration again. Raises ConfigurationError; then nothing has changed."""
        ...


class _NewKey(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    expires_at: float | None = None


class _Weights(msgspec.Struct, forbid_unknown_fields=True):
    weights: dict[str, Annotated[float, msgspec.Meta(ge=0)]]


def admin_routes(gateway: Administration) -> list[tuple[str, str, Page]]:
    """(method, path, page)"""
    admin = _Admin(gateway)
    pages: list[tuple[str, str, Page]] = [
        ("GET", "/admin/keys", admin.list_keys),
        ("POST", "/admin/keys", admin.create_key),
        ("DELETE", "/admin/keys/{key_id}", admin.revoke_key),
        ("GET", "/admin/feedback", admin.feedback),
        ("PUT", "/admin/weights/{model:path}", admin.set_weights),
        ("POST", "/admin/reload", admin.reload),
    ]
    return [(method, path, admin.checked(page)) for method, path, page in pages]


class _Admin:
    def __init__(self, gateway: Administration) -> None:
        self._gateway = gateway

    def checked(self, page: Page) -> Page:
        async def checked(request: Request) -> Response:
            self._gateway.parts.tenancy.admin.check(dict(request.headers.raw))
            try:
                return await page(request)
            except ConfigurationError as error:
                raise InvalidRequestError(str(error)) from error

        return checked

    async def list_keys(self, request: Request) -> Response:
        tenant = request.query_params.get("tenant")
        keys = await self._gateway.parts.tenancy.database.run(lambda connection: KeyStore(connection).all(tenant))
        return _json({"data": [_shown(key) for key in keys]})

    async def create_key(self, request: Request) -> Response:
        """The key's text is in this answer and nowhere else."""
        wanted = await _body(request, _NewKey)
        parts = self._gateway.parts
        if wanted.tenant not in parts.config.tenants:
            known = ", ".join(parts.config.tenants) or "none"
            raise InvalidRequestError(
                f"tenant {wanted.tenant!r} is not configured; configured: {known}", param="tenant"
            )
        new = await parts.tenancy.database.run(
            lambda connection: KeyStore(connection).create(
                wanted.tenant, wanted.name, time.time(), expires_at=wanted.expires_at
            )
        )
        await parts.tenancy.refresh()
        return _json({"key": new.text, **_shown(new.record)}, 201)

    async def revoke_key(self, request: Request) -> Response:
        key_id = request.path_params["key_id"]
        tenancy = self._gateway.parts.tenancy
        revoked = await tenancy.database.run(lambda connection: KeyStore(connection).revoke(key_id, time.time()))
        await tenancy.refresh()
        return _json(_shown(revoked))

    async def feedback(self, request: Request) -> Response:
        try:
            limit = min(max(1, int(request.query_params.get("limit", "100"))), 10_000)
        except ValueError as error:
            raise InvalidRequestError("limit is no whole number; give one from 1 to 10000", param="limit") from error
        latest = await self._gateway.parts.tenancy.feedback.latest(limit, request.query_params.get("tenant"))
        return _json({"data": [asdict(one) for one in latest]})

    async def set_weights(self, request: Request) -> Response:
        """Until the next reload, which sets the configuration's again."""
        model = request.path_params["model"]
        wanted = (await _body(request, _Weights)).weights
        parts = self._gateway.parts
        if model not in parts.config.models:
            raise ModelNotFoundError(f"model {model[:200]!r} is not configured", param="model")
        versions = {version.version for version in parts.config.models[model].all_versions}
        unknown = sorted(set(wanted) - versions)
        if unknown or not any(wanted.values()):
            raise InvalidRequestError(
                f"weights must name versions of {', '.join(sorted(versions))}, one of them above 0"
                + (f"; unknown: {', '.join(unknown)}" if unknown else ""),
                param="weights",
            )
        parts.pool.set_weights(model, wanted)
        return _json({"model": model, "weights": wanted})

    async def reload(self, _: Request) -> Response:
        await self._gateway.reload()
        return _json({"status": "reloaded"})


def _shown(key: KeyRecord) -> dict[str, Any]:
    """Without anything of the secret."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


async def _body(request: Request, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise explain_validation_error(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError("the body is not valid JSON in UTF-8") from error


def _json(payload: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(payload), status, media_type="application/json")
