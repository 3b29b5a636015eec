"""What the filter in front of Gradio rejects; tests/end_to_end/test_page_requests.py tests it with Gradio."""

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from app.access import MAX_ATTEMPTS
from app.ui.middleware import RequestFilter


async def login(scope, receive, send):
    """Gradio's answers to a password."""
    password = b""
    while (message := await receive()).get("more_body"):
        password += message["body"]
    right = password + message["body"] == b"password=right"
    await JSONResponse({}, 200 if right else 400)(scope, receive, send)


@pytest.fixture
def client():
    return TestClient(RequestFilter(login))


def attempt(client, password, path="/login"):
    return client.post(path, content=f"password={password}")


def test_wrong_passwords_are_limited(client):
    for number in range(MAX_ATTEMPTS):
        assert attempt(client, number, "/login/" if number % 2 else "/login").status_code == 400
    for password in ("right", "another"):
        response = attempt(client, password)
        assert response.status_code == 429 and 50 < int(response.headers["Retry-After"]) <= 60
        assert response.json()["detail"].startswith("Too many wrong passwords; try again in ")
    in_chinese = client.post("/login", content="password=x", headers={"Accept-Language": "zh-CN"})
    assert in_chinese.json()["detail"].startswith("密码错误次数过多")
    assert client.get("/theme.css").status_code == 400  # other pages are served


def test_right_passwords_do_not_count(client):
    for _ in range(3 * MAX_ATTEMPTS):
        assert attempt(client, "right").status_code == 200
