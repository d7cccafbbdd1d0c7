"""When alerts fire. The defaults are those of the project's check-list; change them to your promises."""

from __future__ import annotations

from dataclasses import dataclass, fields

from foveal.core.errors import ConfigurationError

__all__ = ["AlertThresholds"]


@dataclass(frozen=True, slots=True)
class AlertThresholds:
    """Raises ConfigurationError for what can never or must always fire."""

    p95_ttft_s: float = 1.0
    """Most seconds to the first token, P95, for 5 minutes. Must be an edge of the histogram or lie between two."""
    error_ratio: float = 0.05
    """Most errors and time-outs among all requests, for 5 minutes."""
    utilisation_ratio: float = 0.5
    """Least use of the replicas' seats, for 30 minutes with traffic."""
    queue_length: float = 10.0
    """A queue that is longer and still grows for 5 minutes."""
    kv_usage_ratio: float = 0.9
    """Most KV cache in use, for 5 minutes."""
    truncation_ratio: float = 0.1
    """Most answers cut off by max_tokens, for 15 minutes."""
    memory_ratio: float = 0.85
    """Most memory in use, for 5 minutes."""
    late_urgent_ratio: float = 0.01
    """Most P0 requests that wait longer than 100 ms, for 5 minutes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigurationError(f"{field.name} is {value}; it must be above 0")
            if field.name.endswith("_ratio") and not value < 1:
                raise ConfigurationError(f"{field.name} is {value}; it is a ratio and must be below 1")
