"""Fetches an image from a URL that a client chose, without letting the client reach our network (SSRF).

Every name is resolved by us, every address is checked, and the connection goes to the very address that was checked: no
second resolution that could answer differently (DNS rebinding). Redirects are followed by us, each checked anew. Proxies,
cookies and credentials of the environment are never used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from foveal.core.errors import ForbiddenUrlError, ImageFetchError, PayloadTooLargeError
from foveal.protocol.remote_image.address_policy import is_public_address
from foveal.protocol.remote_image.fetch_config import FetchConfig
from foveal.protocol.remote_image.system_resolver import SystemResolver

__all__ = ["ImageFetcher", "Resolve", "system_resolve"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 64 * 1024
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "foveal"}
# What some servers say about every file.
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/binary"})


class Resolve(Protocol):
    """Host name -> all of its addresses, as text. Raises OSError if there is none."""

    async def __call__(self, host: str, port: int) -> list[str]: ...


system_resolve: Resolve = SystemResolver()
"""One for the process: a reload makes new fetchers, but no new threads."""


class ImageFetcher:
    """Holds no connection between fetches. `resolve` and `is_allowed_address` are injected by tests."""

    def __init__(
        self,
        config: FetchConfig,
        max_bytes: int,
        resolve: Resolve = system_resolve,
        is_allowed_address: Callable[[str], bool] = is_public_address,
    ) -> None:
        self._config = config
        self._max_bytes = max_bytes
        self._resolve = resolve
        self._is_allowed_address = (lambda _: True) if config.allow_private else is_allowed_address
        self._slots = asyncio.Semaphore(config.max_concurrent)

    async def fetch(self, url: str, param: str) -> bytes:
        """The bytes behind `url`, at most `max_bytes`.

        Raises ForbiddenUrlError for a URL that policy refuses, PayloadTooLargeError, and ImageFetchError if it cannot be
        read; all three name `param`, the request field.
        """
        timeout_s = self._config.timeout_s
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await self._follow(url, param)
        except TimeoutError:
            raise ImageFetchError(
                f"the image URL took longer than {timeout_s:g} s; send the image as a data URL or raise "
                f"{self._config.timeout_setting}",
                param=param,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError, UnicodeError) as error:
            raise ImageFetchError(
                f"the image URL could not be read ({type(error).__name__}); check that it is reachable from the server, or "
                "send the image as a data URL",
                param=param,
            ) from error

    async def _follow(self, url: str, param: str) -> bytes:
        limit = self._config.max_redirects
        for _ in range(limit + 1):
            target = self._check_url(url, param)
            addresses = await self._checked_addresses(target, param)
            redirect = await self._get(target, addresses, param)
            if isinstance(redirect, bytes):
                return redirect
            url = redirect
        raise ImageFetchError(f"the image URL redirects more than {limit} times; send its final address", param=param)

    def _check_url(self, url: str, param: str) -> URL:
        """Scheme, credentials, port and domain. Raises ForbiddenUrlError."""
        if not self._config.enabled:
            raise ForbiddenUrlError("image URLs are switched off here; send the image as a data URL", param=param)
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").rstrip(".").lower()
            target = URL(url)
        except ValueError as error:
            raise ForbiddenUrlError(f"the image URL is malformed: {error}", param=param) from error
        if parts.scheme not in ("http", "https"):
            raise ForbiddenUrlError(
                f"the image URL has scheme {parts.scheme or ''!r}; use http, https or data", param=param
            )
        # Two parsers must agree on the host, or a URL could be checked as one and fetched as another.
        if not host or (target.raw_host or "").rstrip(".").lower() not in (host, _idna(host)):
            raise ForbiddenUrlError("the image URL has no clear host name; write it plainly", param=param)
        if parts.username is not None or parts.password is not None:
            raise ForbiddenUrlError("the image URL holds credentials; remove them", param=param)
        ports = self._config.allowed_ports
        port = port or (443 if parts.scheme == "https" else 80)
        if ports and port not in ports:
            raise ForbiddenUrlError(
                f"the image URL has port {port}; allowed are {', '.join(map(str, ports))}", param=param
            )
        domains = self._config.allowed_domains
        if domains and not any(host == domain or host.endswith("." + domain) for domain in domains):
            raise ForbiddenUrlError(
                f"the image URL's domain {host!r} is not on this server's list; send the image as a data URL",
                param=param,
            )
        return target

    async def _checked_addresses(self, target: URL, param: str) -> list[str]:
        """All addresses of the host; one that is not public spoils the name. Raises ForbiddenUrlError."""
        host = (target.raw_host or "").rstrip(".")
        literal = _literal_address(host)
        addresses = [literal] if literal else await self._resolve(host, target.port or 80)
        if not addresses:
            raise ImageFetchError(f"the image URL's host {host!r} has no address; check its name", param=param)
        if not all(map(self._is_allowed_address, addresses)):
            # The address is not told: it would let clients map the network.
            raise ForbiddenUrlError(
                f"the image URL's host {host!r} leads to a private or reserved address; use a public one or send the image as "
                "a data URL",
                param=param,
            )
        return addresses

    async def _get(self, target: URL, addresses: list[str], param: str) -> bytes | str:
        """The body, or where it redirects to."""
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, ttl_dns_cache=None
        )
        # A session per fetch: a pooled connection would have been checked for another request, at another time.
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
            session.get(target, headers=_HEADERS, allow_redirects=False, auto_decompress=False) as response,
        ):
            if response.status in _REDIRECTS and "Location" in response.headers:
                return str(target.join(URL(response.headers["Location"])))
            if response.status != 200:
                raise ImageFetchError(
                    f"the image URL answered with status {response.status}; check that it needs no login", param=param
                )
            kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
            if kind not in _UNTYPED and not kind.startswith("image/"):
                raise ImageFetchError(
                    f"the image URL holds {kind}, not an image; send the address of the picture itself", param=param
                )
            return await self._read(response, param)

    async def _read(self, response: aiohttp.ClientResponse, param: str) -> bytes:
        self._check_size(response.content_length or 0, param)
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            self._check_size(len(body), param)
        return bytes(body)

    def _check_size(self, size: int, param: str) -> None:
        if size > self._max_bytes:
            raise PayloadTooLargeError(
                f"the image behind the URL has {size:,} bytes or more; the limit is {self._max_bytes:,}. Use a smaller one or "
                f"raise {self._config.size_setting}",
                param=param,
            )


class _Pinned(AbstractResolver):
    """Answers with the addresses that were checked, whatever DNS says now."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _literal_address(host: str) -> str | None:
    """The address that a host is written as, also as 2130706433, 0x7f000001, 0177.1 or 127.1 as inet_aton reads it."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _idna(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host
