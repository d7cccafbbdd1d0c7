"""Images by URL through a real gateway: fetched once, sent on as bytes, refused where the address must not be reached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from foveal.gateway.config.remote_images import RemoteImagesConfig
from foveal.gateway.tenancy.tenant import Tenant, TenantLimits
from support.fake_backend import FakeBackend, fake_backend
from support.pictures import data_url, png
from support.running_gateway import ask, gateway_config, post, running_gateway

PICTURE = png("red", (64, 48))


class Site:
    def __init__(self) -> None:
        self.served = 0
        self.url = ""

    async def picture(self, _: web.Request) -> web.Response:
        self.served += 1
        return web.Response(body=PICTURE, content_type="image/png")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.add_routes([web.get("/a.png", site.picture)])
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}/a.png"
    yield site
    await runner.cleanup()


@pytest.fixture
async def backend() -> AsyncIterator[FakeBackend]:
    async with fake_backend() as backend:
        yield backend


def about(url: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}]
    return ask(messages=[{"role": "user", "content": content}], **fields)


OPEN = RemoteImagesConfig(allow_private=True, allowed_ports=())


async def test_a_picture_is_fetched_once_and_reaches_the_backend_as_bytes(site: Site, backend: FakeBackend) -> None:
    config = gateway_config([backend], remote_images=OPEN)
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        for _ in range(2):
            assert (await post(session, about(site.url)))[0] == 200
        assert running.gateway.body_bytes == 0
    assert site.served == 1
    for request in backend.requests:
        assert request.body["messages"][0]["content"][0]["image_url"]["url"] == data_url(PICTURE)


async def test_an_address_of_this_machine_is_refused_by_default(site: Site, backend: FakeBackend) -> None:
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as session:
        port = site.url.split(":")[2].split("/")[0]
        for host in ("127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"):
            status, body = await post(session, about(f"http://{host}:{port}/a.png"))
            assert (status, body["error"]["code"]) == (400, "forbidden_url"), host
    assert (site.served, backend.requests) == (0, [])
    assert running.count("client_error") == 4


async def test_nothing_is_fetched_for_a_tenant_over_its_limits(site: Site, backend: FakeBackend) -> None:
    sender = Tenant("anonymous", limits=TenantLimits(requests_per_minute=6), burst_s=10.0)
    config = gateway_config([backend], remote_images=OPEN, anonymous=sender)
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        statuses = [(await post(session, about(f"{site.url}?{number}")))[0] for number in range(3)]
    assert (statuses, site.served) == ([200, 429, 429], 1)


async def test_by_policy_urls_pass_through_or_are_refused(site: Site, backend: FakeBackend) -> None:
    config = gateway_config([backend], remote_images=RemoteImagesConfig(policy="pass_through"))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, about(site.url)))[0] == 200
    assert backend.requests[0].body["messages"][0]["content"][0]["image_url"]["url"] == site.url
    config = gateway_config([backend], remote_images=RemoteImagesConfig(policy="refuse"))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, about(site.url)))[0] == 400
    assert site.served == 0


async def test_answers_about_fetched_pictures_are_kept_by_their_content(site: Site, backend: FakeBackend) -> None:
    config = gateway_config([backend], remote_images=OPEN)
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        for expected in ("", "hit"):
            async with session.post("/v1/chat/completions", json=about(site.url, temperature=0)) as response:
                assert response.headers.get("X-Foveal-Cache", "") == expected
    assert len(backend.requests) == 1
