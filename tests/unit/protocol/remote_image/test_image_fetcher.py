"""SSRF: no URL of a client reaches our network, however it is written, redirected or resolved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from foveal.core.errors import ForbiddenUrlError, ImageFetchError, PayloadTooLargeError
from foveal.protocol.remote_image.fetch_config import FetchConfig
from foveal.protocol.remote_image.image_fetcher import ImageFetcher
from support.picture_site import Site, picture_site
from support.pictures import png

PARAM = "messages[0].content[0].image_url"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with picture_site() as site:
        yield site


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://0x7f.1/a.png",
        "http://0177.0.0.1/a.png",
        "http://127.1/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[::ffff:7f00:1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png",
        "http://[fe80::1%25eth0]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a.png",
        "http://127.0.0.1./a.png",
        "http://①②⑦.0.0.1/a.png",
    ],
)
async def test_private_addresses_are_refused_however_they_are_written(url: str) -> None:
    fetcher = ImageFetcher(FetchConfig(), 1 << 20)
    with pytest.raises((ForbiddenUrlError, ImageFetchError)) as caught:
        await fetcher.fetch(url, PARAM)
    assert isinstance(caught.value, ForbiddenUrlError), caught.value
    assert caught.value.param == PARAM


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://example.com/a.png", "scheme 'ftp'"),
        ("gopher://example.com/", "scheme 'gopher'"),
        ("//example.com/a.png", "scheme ''"),
        ("http://user:password@example.com/a.png", "credentials"),
        ("http://example.com:22/a.png", "port 22"),
        ("http://example.com:99999/a.png", "malformed"),
        ("http:///a.png", "host name"),
        ("http://example.com\\@127.0.0.1/a.png", "image URL"),
        ("http://[::1/a.png", "malformed"),
    ],
)
async def test_urls_outside_the_policy_are_refused(url: str, words: str) -> None:
    with pytest.raises(ForbiddenUrlError, match=words):
        await ImageFetcher(FetchConfig(), 1 << 20).fetch(url, PARAM)


async def test_a_public_picture_is_fetched(site: Site) -> None:
    assert await site.fetcher().fetch(site.url("/a.png"), PARAM) == png()


async def test_one_private_address_among_public_ones_spoils_the_name(site: Site) -> None:
    site.answers["pictures.test"] = ["127.0.0.1", "10.0.0.1"]
    with pytest.raises(ForbiddenUrlError):
        await site.fetcher().fetch(site.url("/a.png"), PARAM)
    assert site.served == []


async def test_a_redirect_to_a_private_address_is_refused(site: Site) -> None:
    with pytest.raises(ForbiddenUrlError):
        await site.fetcher().fetch(site.url(f"/redirect?to=http://127.0.0.2:{site.port}/a.png"), PARAM)
    assert site.served == ["/redirect"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://user:pw@pictures.test/a.png"])
async def test_a_redirect_out_of_the_policy_is_refused(site: Site, target: str) -> None:
    with pytest.raises(ForbiddenUrlError):
        await site.fetcher().fetch(site.url(f"/redirect?to={target}"), PARAM)


async def test_a_relative_redirect_is_followed(site: Site) -> None:
    assert await site.fetcher().fetch(site.url("/redirect?to=/a.png"), PARAM) == png()


async def test_redirects_are_limited(site: Site) -> None:
    with pytest.raises(ImageFetchError, match="more than 3 times"):
        await site.fetcher().fetch(site.url("/loop"), PARAM)
    assert len(site.served) == 4


async def test_dns_rebinding_has_no_second_resolution_to_exploit(site: Site) -> None:
    """The name turns private right after it was checked; the connection still goes to the checked address."""

    async def rebinding(host: str, port: int) -> list[str]:
        addresses = await site.resolve(host, port)
        site.answers[host] = ["10.0.0.1"]
        return addresses

    fetcher = site.fetcher()
    fetcher._resolve = rebinding
    assert await fetcher.fetch(site.url("/a.png"), PARAM) == png()
    assert site.resolved == ["pictures.test"]


async def test_dns_rebinding_between_redirects_is_refused(site: Site) -> None:
    async def rebinding(host: str, port: int) -> list[str]:
        addresses = await site.resolve(host, port)
        site.answers[host] = ["10.0.0.1"]
        return addresses

    fetcher = site.fetcher()
    fetcher._resolve = rebinding
    with pytest.raises(ForbiddenUrlError):
        await fetcher.fetch(site.url("/redirect?to=/a.png"), PARAM)
    assert site.served == ["/redirect"]


async def test_an_allow_list_admits_subdomains_and_nothing_else(site: Site) -> None:
    site.answers |= {"cdn.pictures.test": ["127.0.0.1"], "evilpictures.test": ["127.0.0.1"]}
    fetcher = site.fetcher(allowed_domains=("Pictures.test",))
    assert await fetcher.fetch(f"http://CDN.pictures.test:{site.port}/a.png", PARAM) == png()
    with pytest.raises(ForbiddenUrlError, match="not on this server's list"):
        await fetcher.fetch(f"http://evilpictures.test:{site.port}/a.png", PARAM)


async def test_private_addresses_need_an_explicit_switch(site: Site) -> None:
    config = FetchConfig(allow_private=True, allowed_ports=())
    assert await ImageFetcher(config, 1 << 20).fetch(f"http://127.0.0.1:{site.port}/a.png", PARAM) == png()


async def test_fetching_can_be_switched_off(site: Site) -> None:
    with pytest.raises(ForbiddenUrlError, match="switched off"):
        await site.fetcher(enabled=False).fetch(site.url("/a.png"), PARAM)


@pytest.mark.parametrize("path", ["/a.png", "/endless"])
async def test_an_oversized_image_is_refused_while_it_streams(site: Site, path: str) -> None:
    with pytest.raises(PayloadTooLargeError, match="limit is 50"):
        await site.fetcher(max_bytes=50).fetch(site.url(path), PARAM)


async def test_a_slow_url_runs_into_the_time_limit(site: Site) -> None:
    with pytest.raises(ImageFetchError, match=r"longer than 0\.2 s"):
        await site.fetcher(timeout_s=0.2).fetch(site.url("/slow"), PARAM)


@pytest.mark.parametrize(("path", "words"), [("/missing", "status 404"), ("/page", "text/html, not an image")])
async def test_an_answer_that_is_no_image_is_explained(site: Site, path: str, words: str) -> None:
    with pytest.raises(ImageFetchError, match=words):
        await site.fetcher().fetch(site.url(path), PARAM)


async def test_an_unknown_host_is_explained(site: Site) -> None:
    with pytest.raises(ImageFetchError, match="could not be read"):
        await site.fetcher().fetch("http://nowhere.test/a.png", PARAM)


async def test_no_proxy_of_the_environment_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await site.fetcher().fetch(site.url("/a.png"), PARAM) == png()


async def test_downloads_at_the_same_time_are_limited(site: Site) -> None:
    fetcher = site.fetcher(max_concurrent=1, timeout_s=0.5)
    slow = asyncio.create_task(fetcher.fetch(site.url("/slow"), PARAM))
    waiting = asyncio.create_task(fetcher.fetch(site.url("/a.png"), PARAM))
    results = await asyncio.gather(slow, waiting, return_exceptions=True)
    assert isinstance(results[0], ImageFetchError)
    assert site.served[0] == "/slow"
