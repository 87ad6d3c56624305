"""URLs that people and agents give lead to public hosts alone: by address, by name, by redirect, by DNS that changes its mind."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx2
import pytest
from django.core.exceptions import ValidationError
from pytest_django import Settings

from agentops.outside import Outside
from runs.engine.errors import GiveUp
from runs.reliability import addresses, guard
from runs.reliability.addresses import NotAllowed

SECONDS = httpx2.Timeout(2)
PUBLIC = "93.184.215.14"


def nobody(host: str) -> list[str]:
    raise OSError(f"nobody knows {host}")


def answers(*found: str) -> addresses.Resolver:
    return lambda host: found


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.1.1",  # private
        "127.0.0.1", "127.255.0.9", "0.0.0.0", "0.1.2.3", "169.254.169.254", "100.64.0.1",  # own
        "192.0.0.9", "192.88.99.1", "198.18.0.1",
        "192.0.2.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255",  # nobody's
        "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.0.0.1.",  # other letters
        "2852039166", "0xa9fea9fe", "0x0a000001", "167772161",
        "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]",
        "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "[::ffff:0:127.0.0.1]", "[::127.0.0.1]",  # IPv4 within
        "[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:7f00:1::]", "[2001:db8::1]",
        "[100::1]", "[4000::1]",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_in_every_form(host: str) -> None:
    with pytest.raises(NotAllowed, match=r"not public\. Nothing was sent there\.$"):
        addresses.addresses_of(f"http://{host}/hook", nobody)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "gopher://127.0.0.1:6379/", "javascript:alert(1)", "//example.com/", "http://",
        "http:///path", "example.com/hook", "", "http://[::1", "http://example.com:99999999/",
        "http://0177.0.0.1/", "http://0251.0376.0251.0376/", "http://012.0.0.1/",
        "http://user@example.com/",
        "http://example.com:80@127.0.0.1/", "http://exa mple.com\x00/", "unix:///run/redis.sock",
    ],
)  # fmt: skip
def test_what_is_no_plain_url_of_a_host_is_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        addresses.addresses_of(url, answers(PUBLIC))


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], ["::1"], ["::ffff:192.168.0.1"], ["fe80::1%eth0"]],
    ids=str,
)
def test_a_name_of_which_one_address_is_private_is_refused(found: list[str]) -> None:
    with pytest.raises(NotAllowed, match=r"^hooks\.example leads to .*, an address that is not public"):
        addresses.addresses_of("https://hooks.example/", answers(*found))


@pytest.mark.parametrize("host", [PUBLIC, "1.1.1.1", "[2606:4700::1111]", "172.15.0.1", "172.32.0.1", "11.0.0.1", "0x01010101"])
def test_a_public_address_is_allowed(host: str) -> None:
    assert addresses.addresses_of(f"https://{host}:8443/hook?a=1", nobody)


def test_a_field_says_what_is_wrong() -> None:
    for url, words in {
        "http://localhost:6379/": "not public",
        "http://no-such-host.invalid/": "cannot be found",
        f"http://{'a' * 64}.example/": "cannot be the name of a host",
    }.items():
        with pytest.raises(ValidationError, match=words):
            addresses.validate(url)


def test_the_operator_may_allow_networks_of_his_own(settings: Settings) -> None:
    settings.ALLOWED_PRIVATE_NETWORKS = ["10.1.0.0/16", "fd00:1::/32"]
    for host in ("10.1.2.3", "[fd00:1::7]", "[::ffff:10.1.2.3]"):
        assert addresses.addresses_of(f"http://{host}/", nobody)
    with pytest.raises(NotAllowed):
        addresses.addresses_of("http://10.2.0.1/", nobody)


# --- over a socket: a host that is allowed, and one beside it that is not ------------------------------------------

Server = tuple[str, list[str]]


@pytest.fixture
def allowed(settings: Settings, outside: Outside) -> Iterator[Server]:
    """A server on 127.0.0.2, which counts as public here; it redirects to whatever its path says. Its URL; what it was asked."""
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.2/32"]
    hosts: list[str] = []

    class Redirects(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(302 if "?to=" in self.path else 200)
            self.send_header("Location", self.path.partition("?to=")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.2", 0), Redirects) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://hooks.example:{server.server_port}", hosts
        server.shutdown()


def get(url: str, resolve: addresses.Resolver) -> httpx2.Response:
    with addresses.client(SECONDS, resolve=resolve) as client:
        return client.get(url)


def test_a_request_goes_to_the_address_that_was_checked_under_the_name_it_was_given(allowed: Server) -> None:
    url, hosts = allowed
    asked: list[str] = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"]

    assert get(f"{url}/hook", resolve).status_code == 200
    assert (asked, hosts) == (["hooks.example"], [url.removeprefix("http://")])


def test_of_several_addresses_the_next_is_tried(allowed: Server, settings: Settings) -> None:
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.2/31"]
    assert get(f"{allowed[0]}/hook", answers("127.0.0.3", "127.0.0.2")).status_code == 200


@pytest.mark.parametrize(
    "form", ["{url}", "http://2130706433:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://inside:{port}/"]
)
def test_a_redirect_to_a_private_address_is_refused(allowed: Server, outside: Outside, form: str) -> None:
    url, hosts = allowed
    target = form.format(url=outside.url, port=outside.url.rpartition(":")[2])
    names = {"hooks.example": ["127.0.0.2"], "inside": ["127.0.0.1"]}
    with pytest.raises(NotAllowed, match="not public"):
        get(f"{url}/hook?to={target}", names.__getitem__)
    assert len(hosts) == 1
    assert outside.visits.told(path="/", window=1)["requests"] == 0


def test_a_redirect_to_another_allowed_host_is_followed(allowed: Server) -> None:
    assert get(f"{allowed[0]}/hook?to={allowed[0]}/there", answers("127.0.0.2")).status_code == 200
    assert len(allowed[1]) == 2


def test_a_name_that_changes_its_mind_leads_nowhere_else(allowed: Server, outside: Outside) -> None:
    """The port is the private server's: a second look at DNS between check and connection would reach it."""
    port = outside.url.rpartition(":")[2]
    turns = iter([["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]])
    with pytest.raises(httpx2.ConnectError):  # at the checked address nobody listens on that port
        get(f"http://hooks.example:{port}/", lambda host: next(turns))
    with pytest.raises(NotAllowed):
        get(f"http://hooks.example:{port}/", lambda host: next(turns))
    assert outside.visits.told(path="/", window=1)["requests"] == 0


@pytest.mark.django_db
def test_on_a_step_it_is_refused_for_good(outside: Outside) -> None:
    with pytest.raises(GiveUp, match=r"127\.0\.0\.1 leads to 127\.0\.0\.1, an address that is not public"):
        guard.call("hooks", lambda: get(outside.url, addresses.look_up))
    assert outside.visits.told(path="/", window=1)["requests"] == 0
