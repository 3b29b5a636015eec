"""Which requests the servers accept: names of the server, web pages that may use it, wrong passwords.

A browser sends requests to a server on this computer for any web page that it shows. Pages of other
sites are recognized by the headers `Origin` and `Sec-Fetch-Site`, which they cannot change. Pages whose own
name points to this computer (DNS rebinding) are recognized by that name in `Host`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MAX_ATTEMPTS = 10  # wrong passwords of one client
ATTEMPTS_WINDOW = 60  # seconds in which they count
_MAX_CLIENTS = 1024  # whose wrong passwords are counted
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_local(host: str) -> bool:
    """Whether an address can only be reached from this computer."""
    return host.startswith("127.") or host in ("localhost", "::1")


class Access:
    """The names of a server that listens on the address `host`, and the web pages that may use it.

    On a loopback address, the names are `LOOPBACK_NAMES`. On others, also all IP addresses, because no DNS
    name can be rebound to look like one, and the name of this computer. `names` are more of them. `origins`
    are those of other pages that may use the server; '*' means all. `frames` are those of pages that may only
    show this one in a frame.
    """

    def __init__(
        self,
        host: str,
        names: Iterable[str] = (),
        origins: Sequence[str] = (),
        frames: Sequence[str] = (),
    ):
        self._is_local = is_local(host)
        self._configured = set(names)
        self._names = {*LOOPBACK_NAMES, bracketed(host.lower())}
        if not self._is_local:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own.partition('.')[0]}.local"}
        self.origins, self._frames = origins, frames

    def allow(self, name: str) -> None:
        """Accept another name."""
        self._configured.add(name.lower())

    def is_name(self, host: str) -> bool:
        """Whether the value of the header `Host` is a name of this server."""
        match = _HOST.fullmatch(host.lower())
        if not match:
            return False
        name = match[1]
        return name in self._names | self._configured or (not self._is_local and _is_ip_address(name))

    @property
    def frame_header(self) -> tuple[bytes, bytes]:
        """The response header by which a browser knows which pages may show this one in a frame."""
        if not self._frames:
            return b"x-frame-options", b"SAMEORIGIN"
        return b"content-security-policy", " ".join(["frame-ancestors 'self'", *self._frames]).encode()

    def is_foreign(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a web page of another site. Following a link from such a page to this
        server is allowed."""
        if "*" in self.origins:
            return False
        if (origin := headers.get("origin")) is not None:
            return not (
                origin.lower() in self.origins or self._is_own(origin.lower(), headers.get("host", ""))
            )
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):  # no browser, or the user
            return False
        # A page in a frame of another site could be made to look like something else. The browser knows which
        # sites may frame it: see `frame_header`.
        targets = ("document", "iframe") if self._frames else ("document",)
        opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in targets
        return not (opened and method in ("GET", "HEAD"))

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether this server, known to the browser as `host`, is this origin."""
        scheme, _, rest = origin.partition("://")
        theirs, ours = _HOST.fullmatch(rest), _HOST.fullmatch(host.lower())
        if not (theirs and ours) or scheme not in _DEFAULT_PORTS:
            return False
        default = _DEFAULT_PORTS[scheme]
        # A proxy may replace its own name and port with those of this server.
        is_proxy = theirs[1] in self._configured
        return is_proxy or (theirs[1], theirs[2] or default) == (ours[1], ours[2] or default)


def client_address(scope: Mapping[str, Any]) -> str:
    """The IP address of the client that sent a request; `scope` is that of ASGI."""
    return (scope.get("client") or ("",))[0]


def client_network(address: str) -> str | None:
    """What identifies the client at an IP address: of an IPv6 address the half that its owner cannot choose.
    None for an address of this computer, where a proxy may pass on the requests of many."""
    return None if is_local(address) or not address else _network(address)


class Attempts:
    """Counts the wrong passwords of each client, and says how long it has to wait before the next attempt."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, dict[object, float]] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """How long the client at this IP address has to wait; 0 if it does not."""
        wrong = self._wrong.get(_network(address), {})
        now = time.monotonic()
        recent = sorted(when for when in wrong.values() if when > now - ATTEMPTS_WINDOW)
        return recent[-MAX_ATTEMPTS] + ATTEMPTS_WINDOW - now if len(recent) >= MAX_ATTEMPTS else 0.0

    def record(self, address: str, guess: object) -> None:
        """Count a wrong password. A repeated guess counts once, so that a program with an outdated key does
        not lock out others at its address."""
        client = _network(address)
        wrong = self._wrong.setdefault(client, {})
        self._wrong.move_to_end(client)
        now = time.monotonic()
        for old in [key for key, when in wrong.items() if when <= now - ATTEMPTS_WINDOW]:
            del wrong[old]
        wrong[guess] = now
        while len(self._wrong) > _MAX_CLIENTS:
            self._wrong.popitem(last=False)

    def forgive(self, address: str, guess: object) -> None:
        """Do not count this password any more: it was right."""
        self._wrong.get(_network(address), {}).pop(guess, None)


def bracketed(host: str) -> str:
    """An address as it is written in a URL: '::1' -> '[::1]'."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
