"""Open the web page that writes with your models, or serve them to programs.

    lm app                                the models in runs/, on this computer only
    lm app --models runs --models ~/old   the models of several folders
    lm app --host 0.0.0.0 --auth me:pass  for others in the network, behind a password
    lm app --mcp                          the page, and its functions as tools of a language model
    lm serve                                 an API like OpenAI's instead of the page; see docs/api.md

The address is printed on standard output. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lm.cli.parser import make_parser
from lm.errors import UserError, one_line

if TYPE_CHECKING:
    from .jobs.queue import Jobs

DEFAULT_MODELS = "runs"
API_PORT = 8000
LONGEST_UNREAD = 60_000  # milliseconds that a program may leave what it was sent unread, then it is left
KEY_VARIABLE = "LM_API_KEY"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser("app", __doc__ or "")
    add = parser.add_argument
    add("--models", action="append", default=None, metavar="DIR",
        help=f"a folder of models; repeatable (default: {DEFAULT_MODELS})")  # fmt: skip
    add("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    add("--port", type=port, default=None, metavar="N",
        help=f"default: 7860, or the next free one; {API_PORT} with --api")  # fmt: skip
    add("--share", action="store_true", default=False, help="a public link, through Gradio's servers")
    add("--allow-changes", action="store_true", default=False,
        help="where anybody can open the page (--share, or --host without --auth): let them train, rename"
        " and delete models, too")  # fmt: skip
    add("--auth", type=credentials, default=None, metavar="USER:PASSWORD", help="who may come in")
    add("--mcp", action="store_true", default=False,
        help="the functions of the page as tools of the Model Context Protocol; needs lm[mcp]")  # fmt: skip
    add("--api", action="store_true", default=False, help="serve the models to programs, over HTTP")
    add("--api-key", type=api_key, default=None, metavar="KEY",
        help=f"the key that programs must have. Others on this computer can see a command line: better set"
        f" the environment variable {KEY_VARIABLE}")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.mcp and options.api:
        parser.error("--mcp is for the page: with --api there are no tools")
    if options.mcp and options.auth:
        # Gradio calls its own server for a tool, and has no password there.
        parser.error("--mcp cannot be behind --auth: leave out one of them")
    if options.api and (options.share or options.auth):
        parser.error("--share and --auth are for the page: with --api, --api-key says who may come in")
    if options.api_key and not options.api:
        parser.error("--api-key is for --api: the page has --auth")
    return options


def port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError("must be between 1 and 65535")
    return number


def credentials(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not (user and password):
        raise argparse.ArgumentTypeError("write it as USER:PASSWORD")
    return user, password


def api_key(text: str) -> str:
    if not (text.isascii() and text.isprintable() and text.strip() == text != ""):
        raise argparse.ArgumentTypeError("a key is made of letters, digits and signs of ASCII")
    return text


def model_folders(named: list[str] | None) -> list[Path]:
    """The folders to look into. Raises UserError if one that was named is not there."""
    folders = [Path(name).expanduser() for name in named or [DEFAULT_MODELS]]
    for folder in folders if named else []:
        if not folder.is_dir():
            raise UserError(f"--models {folder}: there is no such folder.")
    return folders


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    folders = model_folders(options.models)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("app").setLevel(logging.INFO)
    (serve_api if options.api else open_page)(options, folders)
    return 0


def open_page(options: argparse.Namespace, folders: list[Path]) -> None:
    if options.mcp and not find_spec("mcp"):
        raise UserError("--mcp needs packages that are not here: pip install 'lm[mcp]'")
    # Gradio reads this when it is imported: the page sends nothing anywhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # For a dashboard that is not open here, it would make a table of its last 10,000 events after each event.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(sys.maxsize)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    import torch

    from .page import build, launch_settings
    from .registry import ModelRegistry

    # All writers share one batch, which one of them computes at a time. The browser is often on the
    # same machine, and threads that fight over the cores slow everybody down many times.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    for_everybody = options.share or not (options.auth or is_local(options.host))
    jobs = trainings(folders[0]) if options.allow_changes or not for_everybody else None
    page = build(ModelRegistry(folders), jobs)
    try:
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=options.auth,
            mcp_server=options.mcp,
            quiet=True,
            prevent_thread_lock=True,
            **launch_settings(),
        )
    except OSError as error:
        where = f"port {options.port}" if options.port else "any port from 7860 on"
        raise UserError(
            f"the page cannot listen on {options.host}, {where}; is it taken? ({one_line(error, 80)})"
        ) from error
    print(f"The page is at {page.local_url}", flush=True)
    wait_for_the_end()
    page.close(verbose=False)


def is_local(host: str) -> bool:
    """Whether only programs on this computer reach an address."""
    return host.startswith("127.") or host in ("localhost", "::1")


def trainings(folder: Path) -> Jobs | None:
    """The trainings that the page may start, whose models appear in `folder`."""
    from .jobs.queue import Jobs

    try:
        jobs = Jobs(folder)
        jobs.keep_going()  # what waited when the last server ended
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None
    return jobs


def serve_api(options: argparse.Namespace, folders: list[Path]) -> None:
    key = options.api_key or key_of_environment()
    # Before torch is imported, so that a port that is taken is told at once.
    listener = listen(options.host, options.port or API_PORT)

    from .api.server import serve
    from .registry import ModelRegistry

    host, port = listener.getsockname()[:2]
    if not key and not is_local(host):
        print(f"warning: whoever reaches this address may use it; {KEY_VARIABLE} sets a key", file=sys.stderr)
    print(f"The API is at http://{f'[{host}]' if ':' in host else host}:{port}/v1", flush=True)
    serve(ModelRegistry(folders), listener, key)
    print(file=sys.stderr)


def key_of_environment() -> str | None:
    try:
        return api_key(os.environ[KEY_VARIABLE]) if os.environ.get(KEY_VARIABLE) else None
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{KEY_VARIABLE}: {error}.") from error


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UserError."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; all its connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LONGEST_UNREAD)
        return listener
    except OSError as error:
        raise UserError(
            f"the API cannot listen on {host}, port {port}; is it taken? ({one_line(error, 80)})"
        ) from error


def wait_for_the_end() -> None:
    """Wait for Ctrl-C or SIGTERM, which are how a server is meant to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(file=sys.stderr)


def serve(arguments: list[str] | None = None) -> int:
    """`lm serve`: the API instead of the page."""
    return main(["--api", *(sys.argv[1:] if arguments is None else arguments)])
