"""How images of http(s) URLs are fetched, by engine and gateway alike."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.errors import ConfigurationError

__all__ = ["FetchConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """How images of http(s) URLs are fetched. The defaults protect against SSRF. Raises ConfigurationError."""

    enabled: bool = True
    """False refuses all http(s) URLs: only data URLs remain."""
    allow_private: bool = False
    """True lets URLs reach private networks and this machine. Only where every client is trusted."""
    allowed_domains: tuple[str, ...] = ()
    """If set, only these domains and their subdomains."""
    allowed_ports: tuple[int, ...] = (80, 443, 8080, 8443)
    """Empty allows all ports."""
    max_redirects: int = 3
    timeout_s: float = 10.0
    """For one image: resolving, connecting, redirects and reading."""
    max_concurrent: int = 16
    """Downloads at the same time, over all requests; more wait within their time-out."""
    timeout_setting: str = "--fetch-timeout"
    """What the operator knows `timeout_s` as, and the limit on bytes: for error messages."""
    size_setting: str = "--max-image-mib"

    def __post_init__(self) -> None:
        if self.max_redirects < 0:
            raise ConfigurationError(f"max_redirects is {self.max_redirects}; it must be at least 0")
        if self.max_concurrent < 1:
            raise ConfigurationError(f"max_concurrent is {self.max_concurrent}; it must be at least 1")
        if not self.timeout_s > 0:
            raise ConfigurationError(f"timeout_s is {self.timeout_s}; it must be above 0")
        object.__setattr__(self, "allowed_domains", tuple(d.lower().strip(".") for d in self.allowed_domains))
