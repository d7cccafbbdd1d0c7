"""What a backend's /v1/models page tells about costs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from foveal.core.errors import ConfigurationError
from foveal.gateway.pricing.rates import CalibratedRates, CostRates
from foveal.gateway.pricing.rules.registry import family_of_name, make_rule
from foveal.gateway.pricing.vision_pricing import VisionPricing
from foveal.protocol.model_costs import ModelCosts

__all__ = ["PublishedCosts", "read_published_costs"]


class _Entry(msgspec.Struct):
    id: str = ""
    root: str | None = None
    costs: ModelCosts | None = None


class _Page(msgspec.Struct):
    data: list[_Entry] = []


@dataclass(frozen=True, slots=True)
class PublishedCosts:
    vision: VisionPricing | None = None
    """None: not told, and the checkpoint's name says nothing either."""
    is_guess: bool = True
    """The rule follows from the checkpoint's name, with the family's usual numbers."""
    rates: CostRates | None = None
    kv_bytes_per_token: int | None = None


def read_published_costs(page: bytes, served_name: str) -> PublishedCosts | None:
    """Facts about `served_name` in the answer of GET /v1/models; None if there is nothing of use.

    Our engine publishes everything; of others the name (`root`, `id`) may tell the family. Never raises: a page that cannot
    be read is no reason not to serve.
    """
    try:
        entries = msgspec.json.decode(page, type=_Page).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    entry = next((entry for entry in entries if entry.id == served_name), entries[0] if len(entries) == 1 else None)
    if entry is None:
        return None
    if entry.costs is None:
        family = family_of_name(entry.root or "") or family_of_name(entry.id)
        return PublishedCosts(VisionPricing(make_rule(family, {}))) if family else None
    return _from_facts(entry.costs)


def _from_facts(costs: ModelCosts) -> PublishedCosts:
    vision = None
    if costs.vision is not None:
        facts = costs.vision
        try:
            rule = make_rule(facts.family, facts.options)
            vision = VisionPricing(rule, facts.pixel_budgets, frozenset(facts.single_view_details))
        except ConfigurationError:
            vision = None  # a family this gateway does not know: it is learnt
    rates: CostRates | None = None
    if costs.latency is not None:
        try:
            rates = CalibratedRates.of_coefficients(costs.latency.step_s, costs.latency.vision_s)
        except ValueError:
            rates = None  # of another version
    return PublishedCosts(vision, False, rates, costs.kv_bytes_per_token)
