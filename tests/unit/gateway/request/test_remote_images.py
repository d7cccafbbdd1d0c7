"""Images named by URL: fetched once, safely, or refused; nothing private is ever reached through the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pybase64
import pytest

from foveal.core.clock import ManualClock
from foveal.core.errors import (
    ForbiddenUrlError,
    ImageDecodeError,
    ImageFetchError,
    OverloadedError,
    PayloadTooLargeError,
)
from foveal.gateway.config.remote_images import RemoteImagesConfig
from foveal.gateway.request.fetcher import make_fetcher
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.request.read_view import read_view
from foveal.gateway.request.remote_images import RemoteImages, ResolvedImages
from foveal.gateway.wire.budget import ByteBudget
from foveal.protocol.remote_image.image_fetcher import Resolve
from support.picture_site import Site, picture_site
from support.pictures import data_url, png

RED, BLUE = png("red", (40, 30)), png("blue", (10, 20))


class Web:
    """What a fetcher finds."""

    def __init__(self, pages: dict[str, bytes | Exception] | None = None) -> None:
        self.pages = pages or {"http://web/red.png": RED, "http://web/blue.png": BLUE}
        self.fetched: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, url: str, param: str) -> bytes:
        self.fetched.append(url)
        await self.gate.wait()
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page


class Setting:
    def __init__(self, web: Web | None = None, limits: RequestLimits | None = None, **config: Any) -> None:
        self.web = web or Web()
        self.clock = ManualClock()
        self.outcomes: list[str] = []
        self.budget = ByteBudget(1 << 20)
        self.images = RemoteImages(
            RemoteImagesConfig(**config), limits or RequestLimits(), self.web, self.clock.now_s, self.outcomes.append
        )

    async def resolve(self, *urls: str, part: str = "image_url", tenant: str = "a") -> tuple[bytes, ResolvedImages]:
        content = [{"type": part, part: {"url": url}} for url in urls]
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
        return body, await self.images.resolve(read_view(body, {}, "chat"), body, self.budget, tenant)


def _forwarded(body: bytes, resolved: ResolvedImages) -> list[str]:
    for start, end, text in sorted(resolved.replacements, reverse=True):
        body = body[:start] + text + body[end:]
    return [part["image_url"]["url"] for part in json.loads(body)["messages"][0]["content"]]


async def test_a_fetched_image_takes_the_place_of_its_url() -> None:
    setting = Setting()

    body, resolved = await setting.resolve("http://web/red.png", data_url(BLUE), "http://web/blue.png")

    assert _forwarded(body, resolved) == [data_url(RED), data_url(BLUE), data_url(BLUE)]
    assert [(image.width, image.height) for image in resolved.view.images] == [(40, 30), (10, 20), (10, 20)]
    assert resolved.view.images[0].num_bytes == len(RED)
    assert resolved.claimed_bytes == setting.budget.used == sum(len(text) for *_, text in resolved.replacements)


async def test_a_fetched_image_is_known_by_its_content() -> None:
    setting = Setting(Web({"http://a/1": RED, "http://b/2": RED, "http://c/3": BLUE}))

    _, resolved = await setting.resolve("http://a/1", "http://b/2", "http://c/3")

    first, second, third = resolved.view.images
    assert first.digest == second.digest != third.digest
    assert first.fingerprint == second.fingerprint != third.fingerprint


async def test_an_image_is_downloaded_once() -> None:
    setting = Setting(cache_ttl_s=60.0)

    await setting.resolve("http://web/red.png", "http://web/red.png")
    await setting.resolve("http://web/red.png")
    assert setting.web.fetched == ["http://web/red.png"]

    setting.clock.advance(61.0)
    await setting.resolve("http://web/red.png")
    assert len(setting.web.fetched) == 2
    assert setting.outcomes == ["fetched", "cached", "fetched"]


async def test_requests_at_the_same_time_share_one_download_even_if_one_leaves() -> None:
    setting = Setting(cache_bytes=0)
    setting.web.gate.clear()
    leaving = asyncio.ensure_future(setting.resolve("http://web/red.png"))
    staying = asyncio.ensure_future(setting.resolve("http://web/red.png"))
    while not setting.web.fetched:
        await asyncio.sleep(0)

    leaving.cancel()
    setting.web.gate.set()

    _, resolved = await staying
    assert resolved.view.images[0].width == 40
    assert setting.web.fetched == ["http://web/red.png"]


async def test_a_tenant_cannot_tell_by_time_what_another_one_fetched() -> None:
    setting = Setting()
    await asyncio.gather(*[setting.resolve("http://web/red.png", tenant=tenant) for tenant in "ab"])
    await setting.resolve("http://web/red.png", tenant="c")
    await setting.resolve("http://web/red.png", tenant="a")

    assert setting.outcomes == ["fetched", "fetched", "fetched", "cached"]


async def test_kept_images_stay_within_their_budget() -> None:
    size = len(data_url(RED))
    setting = Setting(Web({f"http://web/{n}": RED for n in range(4)}), cache_bytes=2 * size)

    for number in (0, 1, 2, 1, 3, 1, 0):
        await setting.resolve(f"http://web/{number}")

    assert setting.web.fetched == [f"http://web/{number}" for number in (0, 1, 2, 3, 0)]


async def test_refused_by_policy() -> None:
    setting = Setting(policy="refuse")

    with pytest.raises(ForbiddenUrlError, match="switched off") as caught:
        await setting.resolve("http://web/red.png")

    assert caught.value.param == "messages[0].content[0].image_url"
    assert setting.web.fetched == []


async def test_passed_through_by_policy() -> None:
    setting = Setting(policy="pass_through")

    body, resolved = await setting.resolve("http://web/red.png")

    assert resolved.replacements == ()
    assert _forwarded(body, resolved) == ["http://web/red.png"]
    assert not setting.images.concerns(resolved.view)


async def test_media_that_are_no_images_are_not_left_to_a_backend_to_fetch() -> None:
    with pytest.raises(ForbiddenUrlError, match="video or audio"):
        await Setting().resolve("http://169.254.169.254/latest", part="video_url")


async def test_what_is_no_picture_does_not_reach_a_backend() -> None:
    setting = Setting(Web({"http://web/secret": b"root:x:0:0:root"}))

    with pytest.raises(ImageDecodeError, match="no picture"):
        await setting.resolve("http://web/secret")
    assert setting.outcomes == ["failed"]


async def test_a_picture_with_too_many_pixels_is_refused() -> None:
    with pytest.raises(PayloadTooLargeError, match="40 x 30"):
        await Setting(limits=RequestLimits(max_image_pixels=1000)).resolve("http://web/red.png")


async def test_nothing_stays_claimed_when_one_of_several_fails() -> None:
    setting = Setting(Web({"http://web/red.png": RED, "http://web/bad": ImageFetchError("gone", param="p")}))

    with pytest.raises(ImageFetchError):
        await setting.resolve("http://web/red.png", "http://web/bad")
    assert setting.budget.used == 0


async def test_without_room_the_request_is_told_to_come_back() -> None:
    setting = Setting()
    setting.budget = ByteBudget(len(data_url(RED)) + 10)

    with pytest.raises(OverloadedError, match="no room"):
        await setting.resolve("http://web/red.png", "http://web/blue.png")
    assert setting.budget.used == 0


async def test_an_image_counts_as_bytes_in_flight_while_the_others_are_still_on_their_way() -> None:
    setting = Setting()
    await setting.resolve("http://web/red.png")
    setting.budget = ByteBudget(1 << 20)
    setting.web.gate.clear()
    resolving = asyncio.ensure_future(setting.resolve("http://web/red.png", "http://web/blue.png"))
    while len(setting.web.fetched) < 2:
        await asyncio.sleep(0)

    assert setting.budget.used == len(data_url(RED))

    resolving.cancel()
    await asyncio.gather(resolving, return_exceptions=True)
    assert setting.budget.used == 0


async def test_a_failed_download_is_tried_again_next_time() -> None:
    setting = Setting(Web({"http://web/x": ImageFetchError("gone", param="p")}))
    with pytest.raises(ImageFetchError):
        await setting.resolve("http://web/x")
    setting.web.pages["http://web/x"] = RED

    _, resolved = await setting.resolve("http://web/x")

    assert resolved.view.images[0].width == 40


def _names(addresses: list[str]) -> Resolve:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    return resolve


def _guarded(resolve: Resolve, **config: Any) -> RemoteImages:
    settings = RemoteImagesConfig(**config)
    return RemoteImages(settings, RequestLimits(), make_fetcher(settings, resolve), ManualClock().now_s)


async def _resolve(images: RemoteImages, url: str) -> ResolvedImages:
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}
    ).encode()
    return await images.resolve(read_view(body, {}, "chat"), body, ByteBudget(1 << 20), "a")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://127.0.0.1:8080/admin",
        "http://localhost/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://0177.0.0.1/a.png",
        "http://127.1/a.png",
        "http://0/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[::ffff:7f00:1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png",
        "http://[2002:7f00:1::]/a.png",
        "http://[fe80::1]/a.png",
        "http://[fc00::1]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a.png",
        "http://172.16.0.1/a.png",
        "http://192.168.1.1/a.png",
        "http://100.100.100.200/latest",
        "http://127.0.0.1./a.png",
        "http://①②⑦.0.0.1/a.png",
        "http://user@127.0.0.1/a.png",
        "http://example.com@127.0.0.1/a.png",
        "HTTP://127.0.0.1/a.png",
        "http://pictures.test:22/a.png",
    ],
)
async def test_no_private_address_is_reached_however_it_is_written(url: str) -> None:
    with pytest.raises(ForbiddenUrlError) as caught:
        await _resolve(_guarded(_names(["127.0.0.1"])), url)
    assert caught.value.param == "messages[0].content[0].image_url"


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.7"], ["93.184.216.34", "10.0.0.7"], ["::ffff:10.0.0.7"]])
async def test_a_name_that_leads_to_a_private_address_is_refused(addresses: list[str]) -> None:
    with pytest.raises(ForbiddenUrlError, match="private or reserved"):
        await _resolve(_guarded(_names(addresses)), "http://pictures.test/a.png")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with picture_site() as site:
        yield site


def _open_to(site: Site, resolve: Resolve | None = None) -> RemoteImages:
    """Loopback counts as public here, so that everything else is seen to be refused."""
    settings = RemoteImagesConfig(allowed_ports=())
    fetcher = make_fetcher(settings, resolve or site.resolve, lambda address: address == "127.0.0.1")
    return RemoteImages(settings, RequestLimits(), fetcher, ManualClock().now_s)


async def test_a_picture_of_the_web_is_fetched_and_measured(site: Site) -> None:
    resolved = await _resolve(_open_to(site), site.url("/a.png"))

    assert (resolved.view.images[0].width, resolved.view.images[0].height) == (8, 8)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2/a.png", "http://10.0.0.1/", "http://[::1]/", "file:///etc/passwd"]
)
async def test_a_redirect_to_a_private_place_is_refused(site: Site, target: str) -> None:
    with pytest.raises(ForbiddenUrlError):
        await _resolve(_open_to(site), site.url(f"/redirect?to={target}"))
    assert site.served == ["/redirect"]


async def test_a_name_that_turns_private_after_the_check_leads_to_the_checked_address(site: Site) -> None:
    """DNS rebinding: there is no second resolution to exploit, and a redirect resolves and checks anew."""

    async def rebinding(host: str, port: int) -> list[str]:
        addresses = await site.resolve(host, port)
        site.answers[host] = ["10.0.0.1"]
        return addresses

    await _resolve(_open_to(site, rebinding), site.url("/a.png"))
    assert site.resolved == ["pictures.test"]

    site.answers["pictures.test"] = ["127.0.0.1"]
    with pytest.raises(ForbiddenUrlError):
        await _resolve(_open_to(site, rebinding), site.url("/redirect?to=/a.png"))
    assert site.served == ["/a.png", "/redirect"]


async def test_domains_outside_the_list_are_refused() -> None:
    images = _guarded(_names(["93.184.216.34"]), allowed_domains=("pictures.test",))

    with pytest.raises(ForbiddenUrlError, match="not on this server's list"):
        await _resolve(images, "http://evilpictures.test/a.png")


def test_fetched_bytes_are_plain_inside_json() -> None:
    assert not set(pybase64.b64encode(bytes(range(256)))) & set(b'"\\')
