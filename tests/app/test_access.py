"""Names of the server, web pages that may use it, and wrong passwords."""

import socket

import pytest

from app import access as module
from app.access import MAX_ATTEMPTS, Access, Attempts

ANYWHERE = ("localhost", "localhost:7860", "127.0.0.1:80", "[::1]", "[::1]:8000", "LocalHost:1")
NOWHERE = (
    "",
    "evil.example",
    "evil.example:7860",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost.",
)
MALFORMED = (
    "localhost:",
    "localhost:x",
    "a@localhost",
    "localhost/",
    "localhost evil",
    "[::1",
    "::1",
    "a,localhost",
)
ADDRESSES = ("10.1.2.3", "192.168.1.7:8000", "[fe80::1]:80", "0.0.0.0:8000")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_a_loopback_address_only_its_names_are_accepted(host):
    access = Access(host)
    assert all(map(access.is_name, ANYWHERE))
    assert not any(map(access.is_name, (*NOWHERE, *MALFORMED, *ADDRESSES, socket.gethostname())))


def test_another_loopback_address_is_its_own_name():
    assert Access("127.0.0.5").is_name("127.0.0.5:80") and not Access("127.0.0.1").is_name("127.0.0.5:80")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "gpu.example"])
def test_on_other_addresses_a_page_cannot_pass_off_its_name_as_an_ip_address_or_this_computer(host):
    access = Access(host)
    assert all(map(access.is_name, (*ANYWHERE, *ADDRESSES, socket.gethostname())))
    assert not any(map(access.is_name, (*NOWHERE, *MALFORMED, "1.2.3", "[1.2.3.4.5]")))
    assert access.is_name("gpu.example:80") == (host == "gpu.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_configured_names_are_accepted(host):
    access = Access(host, ["lm.example"])
    assert access.is_name("LM.example") and access.is_name("lm.example:8443")
    assert not access.is_name("a.lm.example")
    access.allow("Share.example")
    assert access.is_name("share.example")


@pytest.mark.parametrize(
    "headers",
    [
        {},  # a program
        {"sec-fetch-site": "none"},  # the address was typed
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:7860"},
        {"origin": "HTTP://Localhost:7860", "sec-fetch-site": "same-origin"},
        {
            "sec-fetch-site": "cross-site",
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "document",
        },  # a link
    ],
)
def test_own_pages_and_programs_are_not_foreign(headers):
    assert not Access("localhost").is_foreign("GET", {"host": "localhost:7860", **headers})


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"origin": "http://evil.example"}),
        ("GET", {"origin": "http://evil.example:7860"}),
        ("POST", {"origin": "null"}),
        ("POST", {"origin": ""}),
        ("POST", {"origin": "http://localhost:3000"}),  # another server on this computer
        ("POST", {"origin": "http://127.0.0.1:7860"}),
        ("POST", {"origin": "ftp://localhost:7860"}),
        ("POST", {"origin": "http://localhost:7860", "host": "127.0.0.1:7860"}),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}),
        ("GET", {"sec-fetch-site": "cross-site"}),
        (
            "POST",
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        ),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}),
    ],
)
def test_other_pages_are_foreign(method, headers):
    assert Access("localhost").is_foreign(method, {"host": "localhost:7860", **headers})


def test_a_page_that_may_frame_this_one_may_not_use_it():
    frame = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    access = Access("localhost", frames=["https://hub.example", "https://*.hub.example"])
    assert not access.is_foreign("GET", {"host": "localhost:7860", **frame})
    assert access.is_foreign("POST", {"host": "localhost:7860", **frame})
    for other in ({"origin": "https://hub.example"}, {**frame, "sec-fetch-dest": "image"}):
        assert access.is_foreign("GET", {"host": "localhost:7860", **other})
    allowed = b"frame-ancestors 'self' https://hub.example https://*.hub.example"
    assert access.frame_header == (b"content-security-policy", allowed)
    assert Access("localhost").frame_header == (b"x-frame-options", b"SAMEORIGIN")


def test_default_ports_may_be_left_out():
    access = Access("0.0.0.0", ["lm.example"])
    assert not access.is_foreign("POST", {"host": "lm.example", "origin": "https://lm.example"})
    assert not access.is_foreign("POST", {"host": "lm.example:80", "origin": "http://lm.example"})
    assert access.is_foreign("POST", {"host": "10.0.0.1", "origin": "https://10.0.0.1:8443"})


def test_a_proxy_may_replace_its_name_and_port():
    access = Access("127.0.0.1", ["lm.example"])
    for host in ("lm.example", "127.0.0.1:7860", "localhost:80"):
        assert not access.is_foreign("POST", {"host": host, "origin": "https://lm.example:8443"})
        assert access.is_foreign("POST", {"host": host, "origin": "https://a.lm.example"})
        assert access.is_foreign("POST", {"host": host, "origin": "https://lm.example.evil.example"})


def test_allowed_origins_are_not_foreign():
    site = {"host": "localhost:8000", "sec-fetch-site": "cross-site"}
    access = Access("127.0.0.1", origins=["http://app.example", "null"])
    assert not access.is_foreign("POST", {**site, "origin": "http://app.example"})
    assert not access.is_foreign("POST", {**site, "origin": "null"})
    assert access.is_foreign("POST", {**site, "origin": "http://app.example:8080"})
    assert access.is_foreign("GET", site)
    everyone = Access("127.0.0.1", origins=["*"])
    assert not everyone.is_foreign("POST", {**site, "origin": "http://evil.example"})
    assert not everyone.is_foreign("GET", site) and not everyone.is_name("evil.example")


def test_a_client_waits_after_many_wrong_passwords(clock):
    attempts = Attempts()
    for number in range(MAX_ATTEMPTS):
        assert attempts.seconds_to_wait("10.0.0.1") == 0
        attempts.record("10.0.0.1", number)
        clock[0] += 1
    assert attempts.seconds_to_wait("10.0.0.1") == module.ATTEMPTS_WINDOW - MAX_ATTEMPTS
    assert attempts.seconds_to_wait("10.0.0.2") == 0
    clock[0] += module.ATTEMPTS_WINDOW - MAX_ATTEMPTS
    assert attempts.seconds_to_wait("10.0.0.1") == 0  # for one attempt
    attempts.record("10.0.0.1", "another")
    assert attempts.seconds_to_wait("10.0.0.1") == 1
    attempts.forgive("10.0.0.1", "another")
    assert attempts.seconds_to_wait("10.0.0.1") == 0


def test_the_same_wrong_key_counts_once(clock):
    attempts = Attempts()
    for _ in range(100):
        attempts.record("10.0.0.1", "old key")
    assert attempts.seconds_to_wait("10.0.0.1") == 0


def test_all_addresses_of_an_ipv6_network_are_one_client_and_few_clients_are_remembered(clock):
    attempts = Attempts()
    for number in range(MAX_ATTEMPTS):
        attempts.record(f"2001:db8:1:2::{number:x}", number)
    assert attempts.seconds_to_wait("2001:db8:1:2:ffff::") > 0 == attempts.seconds_to_wait("2001:db8:1:3::")
    for number in range(2000):
        attempts.record(f"10.0.{number // 256}.{number % 256}", "a")
    assert len(attempts._wrong) == 1024
