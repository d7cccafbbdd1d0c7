"""What the HTTP server is started with. Validated once."""

from __future__ import annotations

from dataclasses import dataclass, field

from foveal.core.errors import ConfigurationError
from foveal.protocol.remote_image.fetch_config import FetchConfig

__all__ = ["ServerConfig"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Limits protect the process; each message about one names its flag. Raises ConfigurationError."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    served_model_names: tuple[str, ...] = ()
    """Names that requests may use; the first one is in responses. Empty: the engine's own."""
    api_key: str | None = None
    """If set, /v1 wants `Authorization: Bearer KEY`."""
    max_body_bytes: int = 64 * MIB
    max_body_bytes_in_flight: int = 512 * MIB
    """Bodies and fetched images of all requests together."""
    max_images: int = 16
    """Per request."""
    max_image_bytes: int = 20 * MIB
    """Of one encoded image."""
    max_image_pixels: int = 40_000_000
    max_prompts: int = 64
    """Per completions request."""
    max_prompt_chars: int = 1_000_000
    """Text of a request, before tokenising; the context length in tokens is the engine's."""
    max_concurrent_requests: int = 512
    """Generation requests at the same time; more are refused with 503."""
    request_timeout_s: float = 300.0
    """From the complete body to the last byte."""
    body_timeout_s: float = 60.0
    """From the headers to the complete body."""
    drain_grace_s: float = 30.0
    """How long requests in flight may take to finish after SIGTERM."""
    retry_after_s: float = 1.0
    """What a 503 tells the client to wait."""
    keep_alive_s: float = 75.0
    """Idle connections are closed after this; longer than load balancers keep theirs (60 s)."""
    access_log: bool = True
    otlp_endpoint: str | None = None
    """Spans go there over OTLP/HTTP, http://localhost:4318/v1/traces. None: no tracing, at no cost."""
    trace_sample_ratio: float = 0.01
    """Of requests that bring no sampling decision in their traceparent."""
    fetch: FetchConfig = field(default_factory=FetchConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port}; it must be between 0 and 65535")
        for name in (
            "max_body_bytes",
            "max_body_bytes_in_flight",
            "max_image_bytes",
            "max_image_pixels",
            "max_prompts",
            "max_prompt_chars",
            "max_concurrent_requests",
        ):
            _at_least(name, getattr(self, name), 1)
        _at_least("max_images", self.max_images, 0)
        for name in ("request_timeout_s", "body_timeout_s", "retry_after_s", "keep_alive_s"):
            _positive(name, getattr(self, name))
        if not 0 <= self.trace_sample_ratio <= 1:
            raise ConfigurationError(f"trace_sample_ratio is {self.trace_sample_ratio}; it must be between 0 and 1")
        if self.drain_grace_s < 0:
            raise ConfigurationError(f"drain_grace_s is {self.drain_grace_s}; it must be at least 0")
        if self.max_body_bytes > self.max_body_bytes_in_flight:
            raise ConfigurationError(
                f"max_body_bytes is {self.max_body_bytes:,}, above max_body_bytes_in_flight "
                f"{self.max_body_bytes_in_flight:,}: such a body could never be admitted. Lower the first"
            )
        if self.api_key is not None and not self.api_key:
            raise ConfigurationError("api_key is empty; set a key or leave it out")


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigurationError(f"{name} is {value}; it must be at least {low}")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{name} is {value}; it must be above 0")
