"""Which addresses a feed may lead us to, and connections to exactly the address that was looked at.

A feed is written by others, and so is where it redirects. Without this it could make us read the metadata
service of a cloud, or a database without a password.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from services.common.errors import SourceUnavailableError

#: Translated to IPv4 whatever it is, and the private addresses of old (RFC 3879).
_OTHER = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))
#: Once the way from IPv4 to 6to4 (RFC 7526).
_RELAYS = IPv4Network("192.88.99.0/24")

#: Numeric addresses of a host. Raises `OSError`.
type Resolve = Callable[[str, int], list[str]]


def system_resolve(host: str, port: int) -> list[str]:
    """What the system's resolver says, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Whether a numeric address is one of the open internet, also when written as another kind."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip.sixtofour is not None or ip.teredo is not None or any(ip in network for network in _OTHER):
            return False
    elif ip in _RELAYS:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def open_socket(
    host: str, port: int, timeout_s: float | None, *, resolve: Resolve, allow_private: bool
) -> socket.socket:
    """Connect to `host`, to an address that was checked: the name is resolved once.

    Raises `SourceUnavailableError`, also when any of its addresses is not public.
    """
    name = host.strip("[]")
    try:
        addresses = resolve(name, port)
    except (OSError, UnicodeError) as error:
        raise SourceUnavailableError(f"the name {name[:100]} cannot be resolved") from error
    if not allow_private and not all(map(is_public, addresses)):
        raise SourceUnavailableError(
            f"{name[:100]} is no public address; set NEWS_ALLOW_PRIVATE=true if it is a server of yours"
        )
    failure: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout_s)
        except OSError as error:
            failure = error
    why = "no address" if failure is None else failure.strerror or type(failure).__name__
    raise SourceUnavailableError(f"cannot connect to {name[:100]}: {why}") from failure
