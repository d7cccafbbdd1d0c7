"""Reading a server's /metrics over HTTP."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit, urlunsplit

from foveal.core.errors import ConfigurationError
from foveal.observability.diagnosis.scrape import MetricsPageError, Scrape, parse_page

__all__ = ["PageSource"]

_MAX_BYTES = 64 << 20


class PageSource:
    """One page. Raises ConfigurationError for an address that is none."""

    def __init__(self, url: str, timeout_s: float = 5.0, api_key: str | None = None) -> None:
        """`url` is a server's address, or the page's own."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no address; write http://localhost:8080")
        path = parts.path if parts.path.strip("/") else "/metrics"
        self.url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def read(self) -> Scrape:
        """Raises MetricsPageError."""
        request = urllib.request.Request(self.url, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                body: bytes = response.read(_MAX_BYTES)
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise MetricsPageError(
                f"cannot read {self.url}: {reason}. Is the server up, and is this its address?"
            ) from error
        return parse_page(body.decode("utf-8", "replace"), time.time())
