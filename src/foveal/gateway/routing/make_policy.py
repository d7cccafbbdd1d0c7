"""From configuration to policy."""

from __future__ import annotations

from foveal.gateway.routing.affinity import Affinity
from foveal.gateway.routing.config import RoutingConfig
from foveal.gateway.routing.least_loaded import LeastLoaded
from foveal.gateway.routing.length_classes import LengthClasses
from foveal.gateway.routing.policy import RoutingPolicy
from foveal.gateway.routing.round_robin import RoundRobin
from foveal.gateway.routing.version_split import VersionSplit

__all__ = ["make_policy"]


def make_policy(config: RoutingConfig) -> RoutingPolicy:
    """The configured policy, behind a split by version."""
    return VersionSplit(_within_version(config))


def _within_version(config: RoutingConfig) -> RoutingPolicy:
    if config.policy == "round_robin":
        return RoundRobin()
    if config.policy == "least_loaded":
        return LeastLoaded()
    affinity = Affinity(config.affinity_keys, config.load_factor)
    if config.policy == "affinity":
        return affinity
    return LengthClasses(config.length_classes, affinity if config.affinity_keys else LeastLoaded())
