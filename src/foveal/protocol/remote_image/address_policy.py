"""Which network addresses a URL from a client may lead to. Pure: no I/O.

`ipaddress.is_global` knows most reserved ranges; IPv6 forms that carry an IPv4 address are unwrapped here, because a
NAT64 or 6to4 gateway would forward them to that address.
"""

from __future__ import annotations

import ipaddress

__all__ = ["embedded_ipv4", "is_public_address"]

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_ISATAP_MARKS = (0x00005EFE, 0x02005EFE)
# Not global in any useful sense, whatever the version of the standard library says about them.
_NEVER = (
    ipaddress.ip_network("0.0.0.0/8"),
    ipaddress.ip_network("100.64.0.0/10"),  # carrier-grade NAT; clouds keep metadata services in it
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.ip_network("198.18.0.0/15"),
    ipaddress.ip_network("240.0.0.0/4"),
    ipaddress.ip_network("fec0::/10"),  # site-local
    ipaddress.ip_network("3fff::/20"),  # documentation
    ipaddress.ip_network("5f00::/16"),  # segment routing
)


def is_public_address(address: str) -> bool:
    """True if `address` (dotted or colon form, as a resolver returns it) is a unicast address of the public internet.

    False for anything else, also for text that is not an address.
    """
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if "%" in address:  # a scope id means link-local
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = embedded_ipv4(ip)
        if inner is not None:
            return all(is_public_address(str(v4)) for v4 in inner)
    if any(ip.version == network.version and ip in network for network in _NEVER):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)


def embedded_ipv4(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address] | None:
    """The IPv4 addresses that an IPv6 address carries (mapped, compatible, NAT64, 6to4, Teredo, ISATAP); None if none."""
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    if ip.sixtofour is not None:
        return [ip.sixtofour]
    if ip.teredo is not None:
        return list(ip.teredo)
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if any(ip in network for network in _NAT64) or ip in _IPV4_COMPATIBLE:
        return [low]
    if (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP_MARKS:
        return [low]
    return None
