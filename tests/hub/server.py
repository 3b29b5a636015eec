"""The server of the local Hub, which tests control: it breaks off responses, delays them or is down."""

from __future__ import annotations

import sys
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from threading import Lock, Thread
from urllib.parse import unquote
from weakref import WeakSet

from tests.hub.handler import TOKEN, Commit, Handler, Interruption, Request
from tests.hub.repositories import HubError, commit_of


class HubServer:
    """Serves the repositories below `root` at `url` while used as a context manager.

    requests    all requests so far, in order
    commits     all uploads so far, in order
    private     the repositories that only users can read
    gated       the repositories from which only the user of ACCEPTED can download
    down        while True, every response is 503
    delay       seconds to wait before each response
    """

    def __init__(self, root: Path):
        self.root, self.port = Path(root), 0
        self.requests: list[Request] = []
        self.commits: list[Commit] = []
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.down, self.delay = False, 0.0
        self.connections: WeakSet[socket] = WeakSet()
        self.interruptions: list[Interruption] = []
        self._lock = Lock()

    def __enter__(self) -> HubServer:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; after a stop(), on the same port as before."""
        self._listener = Listener(("127.0.0.1", self.port), type("Handler", (Handler,), {"hub": self}))
        self.port = self._listener.server_port
        Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close all connections and refuse new ones."""
        self._listener.shutdown()
        self._listener.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)

    def interrupt(self, suffix: str, after: int, times: int = 1, reset: bool = False) -> None:
        """Break the next `times` responses with a file whose path ends with `suffix` after `after` bytes.

        The connection is closed, as by a server that died, or with `reset` by a TCP reset.
        """
        self.interruptions.append(Interruption(suffix, after, times, reset))

    def next_interruption(self, path: Path, size: int) -> Interruption | None:
        """The interruption of a response with `size` bytes of a file, if there is one left."""
        with self._lock:
            for interruption in self.interruptions:
                matches = path.as_posix().endswith(interruption.suffix) and size > interruption.after
                if matches and interruption.times:
                    interruption.times -= 1
                    return interruption
        return None

    def environment(self, hf_home: Path) -> dict[str, str]:
        """The environment in which the clients of another process use this Hub and no other host.

        This server is also their proxy, so that requests to the dataset viewer, http://datasets-server.127.0.0.1,
        get a 404 instead of a DNS lookup. Xet is disabled for uploads; downloads work either way.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(hf_home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "http_proxy": self.url,
            "https_proxy": self.url,
            "no_proxy": "127.0.0.1,localhost",
        }

    def sha(self, repo: str, revision: str = "main", kind: str = "datasets") -> str:
        """The current commit of a revision of "org/name"; `kind` is "datasets" or "models"."""
        return self.find(kind, repo, revision)[1]

    def find(self, kind: str, repo: str, revision: str = "main") -> tuple[Path, str]:
        """The folder and the sha of a revision: main, the name after an @, or the sha of one of these."""
        main = self.root / kind / repo
        if not main.is_dir():
            raise HubError(404, "RepoNotFound", "Repository not found")
        for folder in [main, *main.parent.glob(f"{main.name}@*")]:
            sha = commit_of(folder)
            if revision in (sha, unquote(folder.name.partition("@")[2]) or "main"):
                return folder, sha
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # otherwise the client has disconnected
            super().handle_error(*arguments)
