"""How a backend is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AffinityKey", "LengthClass", "PolicyName", "RoutingConfig"]

PolicyName = Literal["round_robin", "least_loaded", "affinity", "length_classes"]
AffinityKey = Literal["session", "image", "prefix"]


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Requests of up to `max_prompt_tokens` prefer `backends`, so that short ones do not queue behind long ones."""

    max_prompt_tokens: int | None
    """Text and vision tokens; None for all that are longer."""
    backends: tuple[str, ...]
    """Ids."""


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    policy: PolicyName = "affinity"
    affinity_keys: tuple[AffinityKey, ...] = ("session", "image", "prefix")
    """The first of these that a request has decides where it belongs."""
    load_factor: float = 1.25
    """A backend may have this many times the mean outstanding cost before its requests go to the next in line."""
    length_classes: tuple[LengthClass, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.load_factor <= 1:
            raise ValueError(f"routing.load_factor is {self.load_factor}; it must be above 1")
        if self.policy == "affinity" and not self.affinity_keys:
            raise ValueError("routing.affinity_keys is empty; name at least one of session, image, prefix")
        limits = [length_class.max_prompt_tokens for length_class in self.length_classes]
        known = [limit for limit in limits if limit is not None]
        if known != sorted(set(known)) or None in limits[:-1]:
            raise ValueError(
                f"routing.length_classes have the limits {limits}; they must rise, and only the last may have none"
            )
        if self.policy == "length_classes" and not self.length_classes:
            raise ValueError("routing.policy is length_classes, but routing.length_classes is empty; name the classes")
