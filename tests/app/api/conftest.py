"""A real server of the API, and clients that speak to it over sockets."""

import http.client
import json
import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn

from app.access import Access
from app.api.responses import refusal
from app.api.server import Api
from app.gate import SETTINGS, Gate
from app.registry import ModelRegistry
from tests.app.conftest import LIMITS, URL

ADDRESS = "127.0.0.1"


class RealServer:
    """An API server at a port."""

    def __init__(self, api, port):
        self.api, self.port = api, port

    def get(self, path):
        return self._request("GET", path)

    def post(self, **body):
        return self._request("POST", URL, json.dumps({"model": "char", **body}))

    @contextmanager
    def connected(self):
        """A socket that buffers little."""
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect((ADDRESS, self.port))
            yield client

    @contextmanager
    def reading(self, **body):
        """A socket from which the response to a request can be read."""
        data = json.dumps({"model": "char", **body}).encode()
        head = f"POST {URL} HTTP/1.0\r\nContent-Type: application/json\r\nHost: localhost\r\n"
        with self.connected() as client:
            client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            yield client

    def _request(self, *arguments):
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=30)
        connection.request(*arguments, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body)


@contextmanager
def serving(folder, limits):
    api = Api(ModelRegistry([folder]), limits)
    listener = socket.create_server((ADDRESS, 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # so that clients soon keep it waiting
    app = Gate(api.app(), Access(ADDRESS), refusal)
    server = uvicorn.Server(uvicorn.Config(app, **SETTINGS, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield RealServer(api, listener.getsockname()[1])
    api.shut_down()
    server.should_exit = server.force_exit = True
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def real_server(api_runs):
    with serving(api_runs, LIMITS) as server:
        yield server
