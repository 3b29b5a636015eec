"""`lm app` and `lm serve`: flags, defaults and one-line errors."""

import socket
import subprocess
import sys
import time

import pytest

from app.command_line import main, model_folders, parse_app, parse_serve, serve
from lm.errors import UserError
from tests.conftest import ROOT, called, script


def without_torch(command, *arguments, hidden=("torch", "gradio")):
    """Run a command in a process that cannot import these modules."""
    code = (
        f"import sys; sys.modules |= dict.fromkeys({hidden});"
        "from app.command_line import main, serve; from lm.cli.parser import run;"
        f"sys.exit(run({command}))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("main", ("--models", "--host", "--port", "--share", "--auth", "--mcp", "--allow-host")),
        ("serve", ("--models", "--host", "--port", "--api-key", "--allow-origin", "--allow-host")),
    ],
)
def test_help_is_fast_and_needs_neither_torch_nor_gradio(command, flags):
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        begin = time.perf_counter()
        result = without_torch(command, "--help")
        seconds.append(time.perf_counter() - begin)
        assert result.returncode == 0, result.stderr
        assert all(flag in result.stdout for flag in flags)
    assert min(seconds) < 0.5


def test_api_flag_of_the_app_means_serve():
    result = without_torch("main", "--api", "--help")
    assert result.returncode == 0 and "--api-key" in result.stdout and "--share" not in result.stdout


def test_missing_models_folder_is_a_one_line_error(tmp_path):
    result = script("-m app", "--models", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: --models nowhere: no such folder.\n" and not result.stdout


def test_port_in_use_is_an_immediate_one_line_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = without_torch("main", "--port", port, hidden=("torch",))
        api = without_torch("serve", "--port", port)
    for result in (app, api):
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"error: port {port} is in use: choose another with --port.\n"


@pytest.mark.slow
@pytest.mark.parametrize("host", ["not-a-host.invalid", "x" * 300 + ".invalid"], ids=["unknown", "too long"])
def test_an_unknown_host_is_an_immediate_one_line_error(host):
    for command, arguments in (("main", ()), ("serve", ()), ("main", ("--port", "8123"))):
        result = without_torch(command, "--host", host, *arguments, hidden=("torch",))
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"error: the host name '{host}' is unknown: choose another with --host.\n"


def test_an_address_of_another_computer_is_a_one_line_error():
    result = without_torch("serve", "--host", "192.0.2.1")
    reason = "Cannot assign requested address"
    assert result.stderr == f"error: the API cannot listen on 192.0.2.1, port 8000: {reason}.\n"


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        ([], "gradio", "studio"),
        (["--api"], "uvicorn", "studio"),
        (["--mcp"], "mcp", "mcp"),
    ],
)
def test_missing_packages_are_a_one_line_error(tmp_path, monkeypatch, arguments, module, extra):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)  # cannot be imported
    result = called("app.command_line", *arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.endswith(
        f"needs packages that are not installed: pip install 'recurrent-lm[{extra}]'\n"
    )


def test_only_the_default_models_folder_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert [str(folder) for folder in model_folders(None)] == ["runs"]
    assert [str(folder) for folder in model_folders(["mine", "."])] == ["mine", "."]
    with pytest.raises(UserError, match="runs"):
        model_folders(["runs"])
    with pytest.raises(UserError, match="--models must not be empty"):
        model_folders([""])


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0"], ["--allow-origin", "*"]])
def test_warnings_of_the_api_are_sentences(arguments, monkeypatch, capsys):
    monkeypatch.delenv("LM_API_KEY", raising=False)
    monkeypatch.setattr("app.api.server.run_server", lambda folders, listener, *_: listener.close())
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    assert serve([*arguments, "--port", str(port)]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and warning.endswith("; set LM_API_KEY to require a key.")


def test_servers_are_local_by_default():
    options = parse_app([])
    assert (options.host, options.port, options.share, options.auth) == ("127.0.0.1", None, False, None)
    options = parse_serve([])
    assert (options.host, options.port, options.api_key) == ("127.0.0.1", 8000, None)
    assert options.allow_origin == []


def test_origins_are_written_as_browsers_send_them():
    given = ["http://Localhost:3000/", "https://example.org", "chrome-extension://abc", "null", "*"]
    options = parse_serve([part for origin in given for part in ("--allow-origin", origin)])
    expected = ["http://localhost:3000", "https://example.org", "chrome-extension://abc", "null", "*"]
    assert options.allow_origin == expected


@pytest.mark.parametrize("parse", [parse_app, parse_serve])
def test_hosts_are_written_as_browsers_send_them(parse):
    assert parse([]).allow_host == []
    given = ["LM.Example.org", "gpu_box", "10.0.0.1", "::1", "[FE80::1]"]
    options = parse([part for name in given for part in ("--allow-host", name)])
    assert options.allow_host == ["lm.example.org", "gpu_box", "10.0.0.1", "[::1]", "[fe80::1]"]


def test_password_may_contain_a_colon():
    assert parse_app(["--auth", "me:a:b"]).auth == ("me", "a:b")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main, ["--auth", "me"]),
        (main, ["--auth", ":x"]),
        (main, ["--port", "0"]),
        (main, ["--port", "x"]),
        (main, ["--api-key", "x"]),
        (main, ["--mcp", "--auth", "me:secret"]),
        (serve, ["--api-key", ""]),
        (serve, ["--api-key", "ü"]),
        (serve, ["--share"]),
        (serve, ["--allow-origin", "localhost:3000"]),
        (serve, ["--allow-origin", "http://localhost:3000/page"]),
        (serve, ["--allow-origin", "https://bücher.example"]),
        (serve, ["--allow-origin", ""]),
        (serve, ["--allow-origin", "http://a b"]),
        (serve, ["--allow-host", "http://lm.example"]),
        (serve, ["--allow-host", "lm.example:8000"]),
        (serve, ["--allow-host", "*"]),
        (main, ["--allow-host", ""]),
        (main, ["--allow-host", "a b"]),
        (serve, ["--auth", "me:x"]),
        (serve, ["--mcp"]),
    ],
)
def test_invalid_flags_are_rejected(command, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("key", ["", "ü"])
def test_invalid_key_in_the_environment_is_a_one_line_error(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LM_API_KEY", key)
    result = called("app.command_line", "--api")
    assert result.returncode == 2
    assert result.stderr == "error: LM_API_KEY must consist of printable ASCII characters.\n"
