"""Models by name, their versions, and the backends that serve them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.config.fields import KEY, SECRET, SHORTHAND, Count, Milliseconds, PositiveCount, Range, Seconds
from foveal.gateway.config.traffic import TimeoutConfig
from foveal.gateway.routing.config import RoutingConfig

__all__ = [
    "BackendConfig",
    "ModelConfig",
    "PricingConfig",
    "SlaConfig",
    "SmartRule",
    "VersionConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """One OpenAI server. A bare URL stands for a backend of which nothing else is said."""

    url: Annotated[str, SHORTHAND]
    """http://host:port or https://host:port, without a path."""
    id: str | None = None
    """Name in metrics, logs and the admin API; absent: host:port of the URL."""
    served_name: str | None = None
    """The model's name on the backend, where it differs from the one clients use."""
    max_in_flight: PositiveCount = 32
    """Requests beyond it wait in the gateway, where priorities and fairness hold."""
    urgent_slots: Count = 0
    """P0 may go this far above `max_in_flight`: for a backend that batches and has room in its batch."""
    api_key: Annotated[str | None, SECRET] = field(default=None, repr=False)
    """Sent to the backend as a bearer token; write it as ${NAME}."""

    @property
    def name(self) -> str:
        return self.id or self.url.partition("://")[2].rstrip("/") or self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionConfig:
    version: Annotated[str, KEY]
    weight: Annotated[float, Range(0.0)] = 1.0
    """Share of the model's traffic relative to its other versions; 0 keeps a version warm."""
    backends: tuple[BackendConfig, ...] = ()
    """Replicas of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmartRule:
    """Requests that meet every condition go to the model `to`. The first rule that holds wins."""

    to: str
    """A model of this file."""
    max_images: Count = 0
    """Conditions: at most this many images,"""
    max_text_chars: Count | None = None
    """at most this many characters of prompt,"""
    max_output_tokens: Count | None = None
    """an explicit `max_tokens` of at most this,"""
    tools: bool = False
    """and no tools, unless this is true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaConfig:
    """Objectives: alerts and dashboards are drawn against them."""

    ttft_p95_s: Seconds = 2.0
    """Time to the first token, 95th percentile."""
    e2e_p95_s: Seconds = 30.0
    """Whole answers, 95th percentile."""
    availability: Annotated[float, Range(0.0, 1.0)] = 0.999
    """Share of requests without an error of ours or a backend's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricingConfig:
    """What a request costs. Absent values are published by the backend, or learnt from the usage of its answers."""

    family: Annotated[str, SHORTHAND] = "auto"
    """Rule from pixels to vision tokens, e.g. qwen2_5_vl, llava_next, idefics3; auto asks the backend, then learns."""
    family_options: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the rule where a checkpoint differs from its family, e.g. max_pixels."""
    latency_model: Path | None = None
    """A file written by `foveal calibrate`."""
    encode_ms_per_token: Milliseconds | None = None
    """Vision encoder, milliseconds per vision token."""
    prefill_ms_per_token: Milliseconds | None = None
    decode_ms_per_token: Milliseconds | None = None
    kv_bytes_per_token: Count | None = None
    default_output_tokens: PositiveCount = 256
    """Expected output of a request that says nothing, until usage has shown better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    name: Annotated[str, KEY]
    backends: Annotated[tuple[BackendConfig, ...], SHORTHAND] = ()
    """Replicas of a model with one version; write either this or `versions`."""
    versions: Mapping[str, VersionConfig] = field(default_factory=dict)
    """Version -> weight and replicas."""
    aliases: tuple[str, ...] = ()
    """Further names that clients may use."""
    fallback: str | None = None
    """A model that answers when this one is down or its queue is past its deadline; marked in the response header."""
    smart: tuple[SmartRule, ...] = ()
    """Simple requests go to a smaller model."""
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    pricing: PricingConfig = PricingConfig()
    sla: SlaConfig = SlaConfig()
    timeouts: TimeoutConfig | None = None
    """Instead of the gateway's `timeouts`."""

    @property
    def all_versions(self) -> tuple[VersionConfig, ...]:
        """`versions`, or the one version "1" that `backends` stand for."""
        return tuple(self.versions.values()) or (VersionConfig(version="1", backends=self.backends),)

    def specs(self) -> tuple[BackendSpec, ...]:
        return tuple(
            BackendSpec(
                id=backend.name,
                url=backend.url.rstrip("/"),
                model=self.name,
                version=version.version,
                served_name=backend.served_name,
                max_in_flight=backend.max_in_flight,
                urgent_slots=backend.urgent_slots,
                api_key=backend.api_key,
            )
            for version in self.all_versions
            for backend in version.backends
        )
