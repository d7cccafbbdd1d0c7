"""One image of a request -> its work, by a family's rule and the backend's treatment of `detail`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from foveal.gateway.pricing.rules.rule import VisionRule, VisionWork

__all__ = ["VisionPricing"]


@dataclass(frozen=True, slots=True)
class VisionPricing:
    rule: VisionRule
    pixel_budgets: Mapping[str, int | None] = field(default_factory=dict)
    """Detail -> most pixels a picture keeps before the rule sees it."""
    single_view_details: frozenset[str] = frozenset()

    def work(self, width: int, height: int, detail: str) -> VisionWork:
        """For a picture of `width` x `height` > 0 pixels."""
        budget = self.pixel_budgets.get(detail)
        if budget is not None and width * height > budget:
            # As our engine's fit_to_budget does.
            scale = math.sqrt(budget / (width * height))
            width, height = max(1, int(width * scale)), max(1, int(height * scale))
        return self.rule.work(width, height, detail in self.single_view_details)
