"""A small local Hugging Face Hub for its real clients, `datasets` and `huggingface_hub`.

The folder root/datasets/org/name or root/models/org/name is a repository, a folder name@v1 next to it another
revision, and a symlink to it a former name. Files may change at any time: the sha of a commit is a hash of
its files.

    with HubServer(tmp_path) as hub:
        hub.interrupt("train.parquet", after=1000)  # breaks the next download of it
        script("train.py", "--dataset", "org/name", env=hub.environment(tmp_path / "hf"), cwd=tmp_path)
        ranges = [request.range for request in hub.requests if request.path.endswith("train.parquet")]

As on the real Hub, LARGE files redirect to another host, the CDN, which is `localhost` here. Uploads
(create_repo, create_branch, upload_folder) require a token and keep the previous commit as name@sha; a pull
request is the revision refs/pr/1, the folder name@refs%2Fpr%2F1. Only pull requests can change the models of
"other".
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, SO_LINGER, SOL_SOCKET, socket
from threading import Lock, Thread
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote
from weakref import WeakSet

import yaml
from huggingface_hub import ModelCard

LARGE = (".parquet", ".safetensors", ".arrow", ".gz", ".zst", ".bin")
DATE = "2026-01-01T00:00:00.000Z"
TOKEN = "hf_test"  # of the user "me"
ACCEPTED = "hf_accepted"  # of a user who has accepted the terms of gated models
ID = r"(?P<id>[\w.-]+(/[\w.-]+)?)"
API = rf"/api/(?P<kind>datasets|models)/{ID}"
WEB = rf"(/(?P<kind>datasets))?/{ID}"
ROUTES = {
    f"GET {API}(/revision/(?P<revision>[^/]+))?": "info",
    f"GET {API}/tree/(?P<revision>[^/]+)/?(?P<path>.*)": "tree",
    f"POST {API}/paths-info/(?P<revision>[^/]+)": "paths_info",
    f"(GET|HEAD) {WEB}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": "resolve",
    "(GET|HEAD) /cdn/(?P<sha256>[0-9a-f]+)/(?P<path>.+)": "cdn",
    "POST /api/repos/create": "create",
    f"POST {API}/branch/(?P<revision>[^/]+)": "branch",
    f"POST {API}/preupload/(?P<revision>[^/]+)": "preupload",
    f"POST {WEB}\\.git/info/lfs/objects/batch": "lfs_batch",
    "PUT /lfs/(?P<sha256>[0-9a-f]+)": "lfs_put",
    f"POST {API}/commit/(?P<revision>[^/]+)": "commit",
    "POST /api/validate-yaml": "validate_yaml",
}


class Request(NamedTuple):
    """A client's request and the status of the response; `path` includes the query and is unquoted."""

    method: str
    path: str
    range: str | None
    status: int


class Commit(NamedTuple):
    """An upload."""

    repo: str
    revision: str
    message: str


@dataclass
class Interruption:
    """Responses to break off; see `HubServer.interrupt`."""

    suffix: str
    after: int
    times: int
    reset: bool


class HubError(Exception):
    """An error response: status, the Hub's error code, message."""


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


def files(folder: Path) -> dict[str, Path]:
    """All files of a repository by their relative paths."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def commit_of(folder: Path) -> str:
    """The sha of a repository, 40 hex digits that depend only on its contents."""
    listing = [f"{name} {digest(path)}" for name, path in files(folder).items()]
    return hashlib.sha1("\n".join(listing).encode()).hexdigest()


def card_data(folder: Path) -> dict:
    """The metadata in the README.md of a repository."""
    card = folder / "README.md"
    found = re.match(r"---\n(.*?)\n---\n", card.read_text(), re.DOTALL) if card.exists() else None
    return yaml.safe_load(found[1]) if found else {}


def digest(path: Path) -> str:
    """The ETag and oid of a file: its sha256 if it is LARGE, else its git sha1."""
    return _digest(path, path.stat().st_mtime_ns, path.stat().st_size)


@cache
def _digest(path: Path, *_) -> str:
    data = path.read_bytes()
    if path.name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def describe(name: str, path: Path) -> dict:
    """The entry of a file or folder in the responses of tree and paths-info."""
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    oid, size = digest(path), path.stat().st_size
    lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 134}} if name.endswith(LARGE) else {}
    commit = {"id": "0" * 40, "title": "Upload", "date": DATE}
    return {"type": "file", "path": name, "oid": oid[:40], "size": size, **lfs, "lastCommit": commit}


class Listener(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # otherwise the client has disconnected
            super().handle_error(*arguments)


class Handler(BaseHTTPRequestHandler):
    """One connection; ROUTES maps requests to methods."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def do_request(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size + 2)[:-2]
            self.rfile.readline()
        time.sleep(self.hub.delay)
        path, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        try:
            if self.hub.down:
                raise HubError(503, "", "Service Unavailable")
            for route, name in ROUTES.items():
                if found := re.fullmatch(route, f"{self.command} {path}"):
                    parts = {part: unquote(text) for part, text in found.groupdict().items() if text}
                    self.kind, self.revision = parts.get("kind", "models"), parts.get("revision", "main")
                    self.id, self.name = parts.get("id", ""), parts.get("path", "")
                    self.sha256 = parts.get("sha256", "")
                    self.check_token(name)
                    return getattr(self, name)()
            raise HubError(404, "", "Not found")
        except HubError as error:
            status, code, message = error.args
            headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
            if code == "EntryNotFound":
                headers["X-Repo-Commit"] = self.hub.sha(self.id, self.revision, self.kind)
            self.respond(status, {"error": message}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_request

    def check_token(self, route: str) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN, ACCEPTED):
            raise HubError(401, "", "Invalid credentials in Authorization header")
        if route in ("create", "branch", "preupload", "commit") and not token:
            raise HubError(401, "", "Invalid username or password.")
        if self.id in self.hub.private and not token:
            raise HubError(401, "RepoNotFound", "Repository not found")
        if self.id in self.hub.gated and route == "resolve" and token != ACCEPTED:
            raise HubError(403, "GatedRepo", f"Access to model {self.id} is restricted.")
        if self.id.startswith("other/") and route in ("branch", "commit") and not self.query.get("create_pr"):
            raise HubError(403, "", "Forbidden: you don't have the right to write here.")

    def respond(self, status: int, body=b"", headers=(), interruption: Interruption | None = None) -> None:
        """Send a status, headers and a body: bytes, or an object as JSON."""
        self.hub.requests.append(Request(self.command, unquote(self.path), self.headers["Range"], status))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if body is data else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: interruption.after] if interruption else data)
        if interruption:
            self.close_connection = True
            if interruption.reset:
                time.sleep(0.2)  # a reset discards what the client has not read yet
                self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def log_message(self, *_) -> None:
        pass

    # Reading

    def info(self) -> None:
        folder, sha = self.hub.find(self.kind, self.id, self.revision)
        path = folder.resolve().relative_to((self.hub.root / self.kind).resolve())
        name = path.as_posix().partition("@")[0]
        info = {"_id": sha[:24], "id": name, "author": name.split("/")[0], "sha": sha}
        info |= {"lastModified": DATE, "createdAt": DATE, "downloads": 0, "likes": 0, "tags": []}
        info |= {"private": False, "gated": False, "disabled": False, "cardData": card_data(folder)}
        self.respond(200, {**info, "siblings": [{"rfilename": name} for name in files(folder)]})

    def tree(self) -> None:
        folder, _ = self.hub.find(self.kind, self.id, self.revision)
        top = folder / self.name
        if not top.is_dir() or ".." in top.parts:
            raise HubError(404, "EntryNotFound", f"{self.name} does not exist on {self.revision}")
        found = top.rglob("*") if self.query.get("recursive") == ["true"] else top.iterdir()
        self.respond(200, [describe(path.relative_to(folder).as_posix(), path) for path in sorted(found)])

    def paths_info(self) -> None:
        folder, _ = self.hub.find(self.kind, self.id, self.revision)
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
        wanted = parse_qs(self.body.decode()).get("paths", [])
        self.respond(200, [describe(name, paths[name]) for name in wanted if name in paths])

    def resolve(self) -> None:
        folder, sha = self.hub.find(self.kind, self.id, self.revision)
        path = files(folder).get(self.name)
        if path is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        etag, headers = digest(path), {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if not self.name.endswith(LARGE):
            return self.send_file(path, {**headers, "ETag": f'"{etag}"'})
        location = (
            f"http://localhost:{self.hub.port}/cdn/{etag}/{quote(path.relative_to(self.hub.root).as_posix())}"
        )
        linked = {"X-Linked-Size": path.stat().st_size, "X-Linked-Etag": f'"{etag}"', "Location": location}
        self.respond(302, b"", {**headers, **linked})

    def cdn(self) -> None:
        path = files(self.hub.root).get(self.name)
        if path is None or digest(path) != self.sha256:
            raise HubError(404, "", "Not found")
        self.send_file(path, {"Accept-Ranges": "bytes", "ETag": f'"{self.sha256}"'})

    def send_file(self, path: Path, headers: dict) -> None:
        data, status, size = path.read_bytes(), 200, path.stat().st_size
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = found.groups()
            start = int(first) if first else max(0, size - int(last))
            stop = min(int(last) + 1, size) if first and last else size
            if start >= stop:
                return self.respond(416, b"", {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            data, status = data[start:stop], 206
        interruption = self.hub.next_interruption(path, len(data)) if self.command == "GET" else None
        self.respond(status, data, headers, interruption)

    # Uploading

    def create(self) -> None:
        wanted = json.loads(self.body)
        kind = "datasets" if wanted.get("type") == "dataset" else "models"
        folder = self.hub.root / kind / (wanted["organization"] or "me") / wanted["name"]
        if wanted["organization"] == "other":
            raise HubError(403, "", "Forbidden: you don't have the right to create a model here.")
        name = folder.relative_to(self.hub.root).as_posix().removeprefix("models/")
        status = 409 if folder.is_dir() else 200
        if status == 200 and "private" in (wanted.get("visibility"), wanted.get("private") and "private"):
            self.hub.private.add(name)
        folder.mkdir(parents=True, exist_ok=True)
        self.respond(status, {"url": f"{self.hub.url}/{name}"})

    def branch(self) -> None:
        main, _ = self.hub.find(self.kind, self.id)
        folder = main.with_name(f"{main.name}@{quote(self.revision, safe='')}")
        if folder.is_dir() or self.revision == "main":
            raise HubError(409, "", "Reference already exists")
        shutil.copytree(main, folder)
        self.respond(200, {})

    def preupload(self) -> None:
        existing, modes = files(self.hub.find(self.kind, self.id, self.revision)[0]), []
        for name in (file["path"] for file in json.loads(self.body)["files"]):
            mode = {"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular"}
            known = {"oid": digest(existing[name])} if name in existing else {}
            modes.append({**mode, **known, "shouldIgnore": False})
        self.respond(200, {"files": modes})

    def lfs_batch(self) -> None:
        wanted = json.loads(self.body)["objects"]
        links = [{"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}} for one in wanted]
        objects = [{**one, "actions": link} for one, link in zip(wanted, links, strict=True)]
        self.respond(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self) -> None:
        if hashlib.sha256(self.body).hexdigest() != self.sha256:
            raise HubError(400, "", "The content does not match its hash")
        (self.hub.root / "lfs").mkdir(exist_ok=True)
        (self.hub.root / "lfs" / self.sha256).write_bytes(self.body)
        self.respond(200)

    def commit(self) -> None:
        folder, sha = self.hub.find(self.kind, self.id, self.revision)
        main, pull_request = self.hub.find(self.kind, self.id)[0], 0
        if self.query.get("create_pr"):
            pull_request = 1 + len(list(main.parent.glob(f"{main.name}@refs%2Fpr%2F*")))
            self.revision = f"refs/pr/{pull_request}"
            folder = shutil.copytree(folder, main.with_name(f"{main.name}@refs%2Fpr%2F{pull_request}"))
        elif files(folder):
            shutil.copytree(folder, main.with_name(f"{main.name}@{sha}"), dirs_exist_ok=True)
        for change in map(json.loads, self.body.splitlines()):
            key, value = change["key"], change["value"]
            if key == "header":
                self.hub.commits.append(Commit(self.id, self.revision, value["summary"]))
            if key in ("file", "lfsFile"):
                path, stored = folder / value["path"], self.hub.root / "lfs" / value.get("oid", "")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(value["content"]) if key == "file" else stored.read_bytes())
        sha = commit_of(folder)
        made = {"commitOid": sha, "commitUrl": f"{self.hub.url}/{self.id}/commit/{sha}"}
        if pull_request:
            made["pullRequestUrl"] = f"{self.hub.url}/{self.id}/discussions/{pull_request}"
        self.respond(200, made)

    def validate_yaml(self) -> None:
        metadata = ModelCard(json.loads(self.body)["content"]).data.to_dict()
        errors = [] if metadata else [{"message": "there is no metadata"}]
        self.respond(200, {"errors": errors, "warnings": []})
