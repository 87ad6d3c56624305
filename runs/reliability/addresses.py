"""Where a URL that a person or an agent gave may lead: to public addresses alone, whatever its name or a redirect says."""

import ipaddress
import socket  # noqa: TID251 - looks names up
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

import httpx2
from django.conf import settings
from django.core.exceptions import ValidationError

from runs.engine.errors import GiveUp

Address = IPv4Address | IPv6Address
Resolver = Callable[[str], Sequence[str]]  # a host's name -> its addresses
PORTS = {"http": 80, "https": 443}
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # what was ever given out
# the two tunnels that have an IPv4 address within, the way to them, and what is kept for protocols
SPECIAL = tuple(map(ipaddress.ip_network, ("2002::/16", "2001::/32", "192.88.99.0/24", "192.0.0.0/24")))


class NotAllowed(GiveUp):
    """The URL leads, or would lead, where nobody may send us; nothing was sent there."""


class Private(NotAllowed):
    """It leads to a private address that the operator has not allowed."""


def look_up(host: str) -> list[str]:
    """What DNS, or the machine's own table, says of a name."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))


def validate(url: str) -> None:
    """For a field of a form or a model: refuse what could not be called. What it leads to later is checked when it is called."""
    try:
        addresses_of(url)
    except NotAllowed as error:
        more = " An operator allows a network by ALLOWED_PRIVATE_NETWORKS." if isinstance(error, Private) else ""
        raise ValidationError(f"{error}{more}", code="address") from error
    except OSError as error:
        raise ValidationError(f"The host of {url} cannot be found; look for a slip in its name.", code="address") from error


def client(timeout: httpx2.Timeout | float, *, resolve: Resolver = look_up) -> httpx2.Client:
    """For such URLs. It follows redirects, each of which is checked; no proxy comes between."""
    return httpx2.Client(transport=Transport(resolve), timeout=timeout, trust_env=False, follow_redirects=True, max_redirects=5)


class Transport(httpx2.BaseTransport):
    """Asks for a host's addresses once for each request, and connects to what it has checked: DNS may change its mind."""

    def __init__(self, resolve: Resolver = look_up) -> None:
        self._resolve = resolve
        # no connection is used twice: one that was made under another name has shown another certificate
        self._inner = httpx2.HTTPTransport(trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        first, *others = addresses_of(str(request.url), self._resolve)
        for address in others:
            try:
                return self._inner.handle_request(_to(first, request))
            except httpx2.ConnectError:
                first = address
        return self._inner.handle_request(_to(first, request))

    def close(self) -> None:
        self._inner.close()


def addresses_of(url: str, resolve: Resolver = look_up) -> list[Address]:
    """Where the URL leads now. Raises NotAllowed where one of its addresses is private, and OSError for an unknown host."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise NotAllowed(f"{url} is no URL: {error}.") from error
    if parsed.scheme not in PORTS or not parsed.host:
        raise NotAllowed(f"{url} does not begin with http:// or https:// and the name of a host.")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise NotAllowed(f"{url} names the port {parsed.port}; there are those from 1 to 65535.")
    if parsed.userinfo:
        raise NotAllowed(f"The URL for {parsed.host} has a username or password in it; send it without.")
    try:
        found = _literal(parsed.host) or [ipaddress.ip_address(one.partition("%")[0]) for one in resolve(parsed.host)]
    except UnicodeError as error:  # an empty label, or one of more than 63 letters
        raise NotAllowed(f"{parsed.host} cannot be the name of a host.") from error
    for address in found:
        if not is_allowed(address):
            raise Private(f"{parsed.host} leads to {address}, an address that is not public. Nothing was sent there.")
    return found


def is_allowed(address: Address) -> bool:
    """Public, or of a network that the operator allows."""
    address = getattr(address, "ipv4_mapped", None) or address
    networks = map(ipaddress.ip_network, settings.ALLOWED_PRIVATE_NETWORKS)
    return any(address in network for network in networks) or _is_public(address)


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return (address.version == 4 or address in PUBLIC_IPV6) and not any(address in network for network in SPECIAL)


def _literal(host: str) -> list[Address]:
    """A host that is an address, also as the C library reads one: 127.1, 0177.0.0.1, 0x7f.1, 2130706433."""
    try:
        return [ipaddress.ip_address(host.partition("%")[0])]
    except ValueError:
        pass
    try:
        return [IPv4Address(socket.inet_aton(host.rstrip(".")))]
    except OSError:
        return []


def _to(address: Address, request: httpx2.Request) -> httpx2.Request:
    """The same request, sent to this address; its Host and the name in its certificate stay."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
