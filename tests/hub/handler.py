"""The responses of the local Hub to its clients: information about repositories, downloads and uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import struct
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, quote, unquote

from huggingface_hub import ModelCard

from tests.hub.repositories import DATE, LARGE, HubError, card_data, commit_of, describe, digest, files

if TYPE_CHECKING:
    from tests.hub.server import HubServer

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
