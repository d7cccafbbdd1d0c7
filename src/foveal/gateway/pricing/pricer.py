"""Requests -> prices, for all models of a gateway."""

from __future__ import annotations

from collections.abc import Mapping

from foveal.gateway.config.models import PricingConfig
from foveal.gateway.pricing.model_pricer import ModelPricer, Settlement
from foveal.gateway.pricing.price import Price
from foveal.gateway.pricing.published import read_published_costs
from foveal.gateway.request.view import RequestView

__all__ = ["Pricer"]


class Pricer:
    """One `ModelPricer` for each model. What was learnt survives `reload`, unless a model's pricing changed."""

    def __init__(self, models: Mapping[str, PricingConfig]) -> None:
        """By the names clients use. Raises ConfigurationError for pricing that cannot be."""
        self._configs: dict[str, PricingConfig] = {}
        self._models: dict[str, ModelPricer] = {}
        self._default = ModelPricer(PricingConfig())
        self.reload(models)

    def reload(self, models: Mapping[str, PricingConfig]) -> None:
        """Raises ConfigurationError; then nothing has changed."""
        fresh = {
            name: self._models[name] if self._configs.get(name) == config else ModelPricer(config)
            for name, config in models.items()
        }
        self._configs, self._models = dict(models), fresh

    def price(self, view: RequestView, model: str | None = None) -> Price:
        """What `view` is expected to cost on `model` (default: the one it names); never fails."""
        return self._pricer(view, model).price(view)

    def settle(self, view: RequestView, found: Settlement, model: str | None = None) -> None:
        """Learn from the usage and times of a complete answer of `model`."""
        self._pricer(view, model).settle(view, found)

    def publish(self, model: str, page: bytes, served_name: str) -> bool:
        """Take what a backend of `model` says in its /v1/models page about `served_name`. False if it says nothing."""
        costs = read_published_costs(page, served_name)
        if costs is None or model not in self._models:
            return False
        self._models[model].publish(costs)
        return True

    def _pricer(self, view: RequestView, model: str | None) -> ModelPricer:
        return self._models.get(view.model if model is None else model, self._default)
