"""Everything the operator says, in one frozen value. `load_config` reads it; reload compares two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.config.access import AdminConfig, AuthConfig
from foveal.gateway.config.caches import CacheConfig
from foveal.gateway.config.listen import ListenConfig
from foveal.gateway.config.models import ModelConfig
from foveal.gateway.config.remote_images import RemoteImagesConfig
from foveal.gateway.config.telemetry import LoggingConfig, MetricsConfig, TracingConfig
from foveal.gateway.config.traffic import QueueDeadlines, TimeoutConfig, UpstreamTlsConfig
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.resilience.config import HealthConfig, HedgeConfig, RetryConfig
from foveal.gateway.tenancy.tenant import ANONYMOUS, Tenant

__all__ = ["GatewayConfig"]


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    models: Mapping[str, ModelConfig]
    """Name that clients use -> versions, backends, fallback."""
    default_model: str | None = None
    """For requests that name no model."""
    listen: ListenConfig = field(default_factory=ListenConfig)
    state: Path | None = None
    """SQLite file with keys, quotas and feedback; absent: they live as long as the process."""
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    """Tenants by id. Keys are made with `foveal keys create`, not written here."""
    anonymous: Tenant = ANONYMOUS
    """Limits of everybody, where no keys are asked for."""
    auth: AuthConfig = field(default_factory=AuthConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    request_limits: RequestLimits = field(default_factory=RequestLimits)
    queue: QueueConfig = field(default_factory=QueueConfig)
    deadlines_s: QueueDeadlines = field(default_factory=QueueDeadlines)
    headroom: HeadroomConfig = field(default_factory=HeadroomConfig)
    timeouts: TimeoutConfig = field(default_factory=TimeoutConfig)
    retries: RetryConfig = field(default_factory=RetryConfig)
    hedging: HedgeConfig = field(default_factory=HedgeConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    upstream_tls: UpstreamTlsConfig = field(default_factory=UpstreamTlsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    remote_images: RemoteImagesConfig = field(default_factory=RemoteImagesConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    @cached_property
    def backends(self) -> tuple[BackendSpec, ...]:
        """All backends of all models, in the file's order."""
        return tuple(spec for model in self.models.values() for spec in model.specs())

    @cached_property
    def model_names(self) -> Mapping[str, str]:
        """Every name that clients may use, aliases included -> the model's name."""
        names = {alias: model.name for model in self.models.values() for alias in model.aliases}
        return names | {name: name for name in self.models}

    @property
    def keys_required(self) -> bool:
        return self.auth.mode == "keys" or (self.auth.mode == "auto" and bool(self.tenants))

    def timeouts_of(self, model: str) -> TimeoutConfig:
        found = self.models.get(model)
        return (found.timeouts if found else None) or self.timeouts
