"""Which addresses a client's URL may lead to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.protocol.remote_image.address_policy import is_public_address

PRIVATE_V4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
]


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize("address", PRIVATE_V4)
def test_private_and_reserved_ipv4_is_refused(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "100::1",
        "3fff::1",
    ],
)
def test_private_and_reserved_ipv6_is_refused(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("v4", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1"])
def test_ipv6_that_carries_a_private_ipv4_is_refused(v4: str) -> None:
    number = int(ipaddress.IPv4Address(v4))
    forms = {
        "mapped": (0xFFFF << 32) | number,
        "compatible": number,
        "nat64": (0x0064FF9B << 96) | number,
        "local nat64": (0x0064FF9B0001 << 80) | number,
        "6to4": (0x2002 << 112) | (number << 80) | 1,
        "teredo": (0x20010000 << 96) | (0x08080808 << 64) | (number ^ 0xFFFFFFFF),
        "isatap": (0x2606_4700 << 96) | (0x5EFE << 32) | number,
    }
    for name, value in forms.items():
        assert not is_public_address(str(ipaddress.IPv6Address(value))), name


def test_ipv6_that_carries_a_public_ipv4_is_allowed() -> None:
    assert is_public_address("64:ff9b::808:808")
    assert is_public_address("::ffff:8.8.8.8")


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "0x7f000001", "1.2.3", "::ffff:1.2.3.4.5"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    assert not is_public_address(text)


@given(st.ip_addresses(v=4))
def test_mapping_into_ipv6_never_changes_the_verdict(address: ipaddress.IPv4Address) -> None:
    assert is_public_address(f"::ffff:{address}") == is_public_address(str(address))
