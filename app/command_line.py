"""The commands `lm app` (the web UI) and `lm serve` (the HTTP API).

`python -m app` is `lm app`; `python -m app --api` is `lm serve`.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lm.cli.parser import integer_type, make_parser
from lm.config.schema import RUNS
from lm.config.settings import check_not_empty
from lm.console.invocation import command, pip_install
from lm.errors import UserError, one_line
from lm.files.paths import expanded

from .access import Access, bracketed, is_local
from .resources import allow_many_files, share_memory_between_threads

API_PORT = 8000
KEY_VARIABLE = "LM_API_KEY"
_UNREAD_TIMEOUT = 60_000  # milliseconds until a client that does not read its response is disconnected
_APP = """Open the web UI: write with your models, look inside, compare and train them.

lm app                                the models in runs/, on this computer
lm app --models runs --models ~/old   the models in several folders
lm app --host 0.0.0.0 --auth me:pass  for others on the network, with a password
lm app --mcp                          also offer its functions as MCP tools

The address is printed on standard output. Ctrl-C stops the server.
"""
_SERVE = """Serve your models over an OpenAI-compatible HTTP API; see docs/api.md.

lm serve                                       for this computer only
LM_API_KEY=secret lm serve --host 0.0.0.0      for others, with a key
lm serve --allow-host lm.example.org           behind a proxy with this name
lm serve --allow-origin http://localhost:3000  for a web page, too

The address is printed on standard output. Ctrl-C stops the server.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `lm app` and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--api" in arguments:
        arguments.remove("--api")
        return serve(arguments)
    options = parse_app(arguments)
    folders = model_folders(options.models)
    require(command("app"), ("gradio", "starlette", "uvicorn", "markdown_it"), "studio")
    if options.mcp:
        require("--mcp", ("mcp",), "mcp")
    log_to_stderr()
    # Before gradio is imported, so that a wrong address is reported immediately.
    listen(options.host, options.port or 0, "page").close()
    share_memory_between_threads()
    allow_many_files()
    # Gradio reads these when it is imported: no telemetry, and no analytics of every event, which it would
    # otherwise recompute from the last 10,000 events after each one.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(sys.maxsize)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    with tempfile.TemporaryDirectory(prefix="lm-app-") as uploads:
        # By default, all users of a computer, and all servers, share one folder.
        os.environ.setdefault("GRADIO_TEMP_DIR", uploads)
        from .launch import launch

        launch(
            folders,
            host=options.host,
            port=options.port,
            share=options.share,
            auth=options.auth,
            mcp=options.mcp,
            changes_allowed=options.allow_changes or not is_public(options),
            access=Access(options.host, options.allow_host, frames=options.allow_frame),
        )
    return 0


def serve(arguments: Sequence[str] | None = None) -> int:
    """Run `lm serve` and return its exit status."""
    options = parse_serve(sys.argv[1:] if arguments is None else arguments)
    folders = model_folders(options.models)
    require(command("serve"), ("starlette", "uvicorn"), "studio")
    key = options.api_key or key_from_environment()
    share_memory_between_threads()
    allow_many_files()
    # Before torch is imported, so that a port in use is reported immediately.
    listener = listen(options.host, options.port)
    log_to_stderr()
    host, port = listener.getsockname()[:2]
    if not key and not is_local(host):
        print(
            f"warning: anyone who can reach this address can use it; set {KEY_VARIABLE} to require a key.",
            file=sys.stderr,
        )
    if "*" in options.allow_origin and not key:
        print(
            f"warning: every web page that you open can use this API; set {KEY_VARIABLE} to require a key.",
            file=sys.stderr,
        )
    from .api.server import run_server

    print(f"The API is at http://{bracketed(host)}:{port}/v1", flush=True)
    access = Access(options.host, options.allow_host, options.allow_origin)
    run_server(folders, listener, key, access)
    return 0


def parse_app(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of `lm app`. Exits with status 2 if they are invalid."""
    parser = make_parser("app", _APP)
    add_address(parser, port_help="port (default: 7860, or the next free one)")
    add = parser.add_argument
    add("--share", action="store_true", default=False, help="create a public link through Gradio's servers")
    add(
        "--auth",
        type=credentials,
        default=None,
        metavar="USER:PASSWORD",
        help="require this user name and password",
    )
    add(
        "--allow-changes",
        action="store_true",
        default=False,
        help="let everyone train, rename and delete models, even with --share or with --host without --auth",
    )
    add(
        "--mcp",
        action="store_true",
        default=False,
        help=f"offer the functions of the page as MCP tools; needs {pip_install('mcp')}",
    )
    add(
        "--allow-frame",
        action="append",
        type=site,
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin, such as https://huggingface.co, show the page in a frame;"
        " repeatable (default: none)",
    )
    add("--api", action="store_true", help="serve the HTTP API instead, as `lm serve` does")
    options = parser.parse_args(arguments)
    if options.mcp and options.auth:
        # For each tool call, Gradio sends a request to its own server, without a password.
        parser.error("--mcp cannot be combined with --auth")
    return options


def parse_serve(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of `lm serve`. Exits with status 2 if they are invalid."""
    parser = make_parser("serve", _SERVE)
    add_address(parser, port_help=f"port (default: {API_PORT})", port=API_PORT)
    parser.add_argument(
        "--api-key",
        type=api_key,
        default=None,
        metavar="KEY",
        help="key that clients must send. Other users of this computer can see the command line; prefer the"
        f" environment variable {KEY_VARIABLE}",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        type=origin,
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin use the API, such as http://localhost:3000, or '*' for all;"
        " repeatable (default: none)",
    )
    return parser.parse_args(arguments)


def add_address(parser: argparse.ArgumentParser, port_help: str, port: int | None = None) -> None:
    """Add the flags that both commands have."""
    add = parser.add_argument
    add(
        "--models",
        action="append",
        default=None,
        metavar="DIR",
        help=f"folder of models; repeatable (default: {RUNS})",
    )
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=integer_type(1, 65535), default=port, metavar="N", help=port_help)
    add(
        "--allow-host",
        action="append",
        type=host_name,
        default=[],
        metavar="NAME",
        help="also serve requests that are sent to this name, such as that of a proxy; repeatable (default:"
        " localhost and 127.0.0.1; with --host also the name of this computer and all IP addresses)",
    )


def host_name(text: str) -> str:
    """A DNS name or an IP address as browsers send it."""
    normalized = bracketed(text.lower())
    if not re.fullmatch(r"\[[0-9a-f:.]+\]|[a-z0-9_.-]+", normalized):
        raise argparse.ArgumentTypeError("must be a name or an IP address, without scheme and port")
    return normalized


def credentials(text: str) -> tuple[str, str]:
    """'me:pass' -> ('me', 'pass')."""
    user, _, password = text.partition(":")
    if not (user and password):
        raise argparse.ArgumentTypeError("must be USER:PASSWORD")
    return user, password


def api_key(text: str) -> str:
    """A key that fits into a request header."""
    if not (text.isascii() and text.isprintable() and text.strip() == text != ""):
        raise argparse.ArgumentTypeError("must consist of printable ASCII characters")
    return text


def origin(text: str) -> str:
    """An origin as browsers send it: without a path, in lower case, and 'null' for a file."""
    valid = "'*' or a scheme, a host and possibly a port, such as http://localhost:3000"
    return normalized_origin(text, r"\*|null|[a-z][a-z0-9+.-]*://[!-.0-~]+", valid)


def site(text: str) -> str:
    """The origin of web pages."""
    valid = "a scheme, a host and possibly a port: https://huggingface.co"
    return normalized_origin(text, r"https?://(\*\.)?[a-z0-9_.-]+(:\d{1,5})?", valid)


def normalized_origin(text: str, pattern: str, valid: str) -> str:
    """An origin in lower case; `valid` says what the regular expression `pattern` accepts."""
    normalized = text.lower().removesuffix("/")
    if not re.fullmatch(pattern, normalized):
        raise argparse.ArgumentTypeError(f"must be {valid}")
    return normalized


def key_from_environment() -> str | None:
    """The API key in the environment, if one is set. Raises UserError if it is invalid."""
    try:
        # An empty one is an error, too: a secret may be missing.
        return api_key(os.environ[KEY_VARIABLE]) if KEY_VARIABLE in os.environ else None
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{KEY_VARIABLE} {error}.") from error


def model_folders(names: Sequence[str] | None) -> list[Path]:
    """The folders named by --models. Raises UserError if one of them does not exist."""
    check_not_empty({"models": names})
    folders = [expanded(name) for name in names or []]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--models {folder}: no such folder.")
    return folders or [RUNS]


def require(what: str, modules: Sequence[str], extra: str) -> None:
    """Raise UserError if one of the optional `modules` is not installed."""
    if any(find_spec(name) is None for name in modules):
        raise UserError(f"{what} needs packages that are not installed: {pip_install(extra)}")


def log_to_stderr() -> None:
    """Log what happens to standard error, whether this package is called app or lm_studio."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger(__package__).setLevel(logging.INFO)


def is_public(options: argparse.Namespace) -> bool:
    """Whether anyone can open the page: others on the network, without a password, or everyone."""
    return bool(options.share or not (options.auth or is_local(options.host)))


def listen(host: str, port: int, what: str = "API") -> socket.socket:
    """A listening socket for `what`. Raises UserError if the address cannot be used."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # the latter for a name that is too long
        raise UserError(f"the host name '{host}' is unknown: choose another with --host.") from error
    try:
        listener = socket.create_server(address[:2], family=family)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; inherited by the accepted connections
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_TIMEOUT)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use: choose another with --port.") from error
        reason = (error.strerror or one_line(error)).partition(" (while")[0]
        raise UserError(f"the {what} cannot listen on {host}, port {port}: {reason}.") from error
