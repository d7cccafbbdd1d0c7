"""Which model's backends a request goes to first: the name asked for, after aliases, rights and smart routing."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.errors import InvalidRequestError, ModelNotFoundError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.request.view import RequestView
from foveal.gateway.routing.smart_routing import smart_target
from foveal.gateway.tenancy.tenant import Tenant

__all__ = ["ModelChoice", "choose_model", "visible_models"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    asked: str
    """The model of the configuration that the client named."""
    model: str
    """The one that gets the request; another one after smart routing."""


def choose_model(config: GatewayConfig, view: RequestView, tenant: Tenant) -> ModelChoice:
    """Raises ModelNotFoundError (404) for an unknown model, and just so for one that the tenant may not use;
    InvalidRequestError for a missing name where there is no default."""
    name = view.model or config.default_model
    if not name:
        raise InvalidRequestError("model is missing; name one that /v1/models lists", param="model")
    asked = config.model_names.get(name)
    if asked is None or not _may_use(tenant, asked):
        available = ", ".join(visible_models(config, tenant)) or "none"
        raise ModelNotFoundError(f"model {name[:200]!r} does not exist here; available: {available}", param="model")
    rules = config.models[asked].smart
    target = smart_target(rules, view) if rules else None
    return ModelChoice(asked, target if target is not None and _may_use(tenant, target) else asked)


def visible_models(config: GatewayConfig, tenant: Tenant) -> list[str]:
    """Models and aliases that the tenant may use, in the order of the configuration."""
    names = [name for model in config.models.values() for name in (model.name, *model.aliases)]
    return [name for name in names if _may_use(tenant, config.model_names[name])]


def _may_use(tenant: Tenant, model: str) -> bool:
    return tenant.models is None or model in tenant.models
