"""Open the web page that writes with your models.

    python -m app                                the models in runs/, on this computer only
    python -m app --models runs --models ~/old   the models of several folders
    python -m app --host 0.0.0.0 --auth me:pass  for others in the network, behind a password

The address of the page is printed on standard output. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

from lm.command_line import make_parser, run
from lm.errors import UserError, one_line

DEFAULT_MODELS = "runs"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.prog = "python -m app"
    add = parser.add_argument
    add("--models", action="append", default=None, metavar="DIR",
        help=f"a folder of models; repeatable (default: {DEFAULT_MODELS})")  # fmt: skip
    add("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    add("--port", type=port, default=None, metavar="N", help="default: 7860, or the next free one")
    add("--share", action="store_true", default=False, help="a public link, through Gradio's servers")
    add("--auth", type=credentials, default=None, metavar="USER:PASSWORD", help="who may come in")
    return parser.parse_args(arguments)


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

    # Gradio reads this when it is imported: the page sends nothing anywhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import torch

    from app.models import Models
    from app.page import build, launch_settings
    from app.write import WRITERS_AT_ONCE

    # Threads that fight over the cores halve everybody's speed, so each writer gets a share of them.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WRITERS_AT_ONCE))
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("app").setLevel(logging.INFO)
    page = build(Models(folders))
    try:
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            auth=options.auth,
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
    return 0


def wait_for_the_end() -> None:
    """Wait for Ctrl-C or SIGTERM, which are how a server is meant to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print(file=sys.stderr)


def script() -> int:
    return run(main)


if __name__ == "__main__":
    sys.exit(script())
