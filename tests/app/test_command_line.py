"""python -m app: how it is called, and how it refuses."""

import socket
import subprocess
import sys
import time

import pytest

from app.command_line import model_folders, parse
from lm.errors import UserError
from tests.conftest import ROOT, script


def test_help_answers_at_once_without_torch_or_gradio():
    blocked = "import sys; sys.modules['torch'] = sys.modules['gradio'] = None; sys.argv = ['app', '--help'];"
    command = [sys.executable, "-c", f"{blocked} from app.command_line import main; main()"]
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        begin = time.perf_counter()
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - begin)
        assert result.returncode == 0, result.stderr
        assert all(flag in result.stdout for flag in ("--models", "--host", "--port", "--share", "--auth"))
    assert min(seconds) < 0.5


def test_a_folder_that_is_not_there_is_one_line_and_exit_status_2(tmp_path):
    result = script("-m app", "--models", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: --models nowhere: there is no such folder.\n" and not result.stdout


def test_a_port_that_is_taken_is_one_line_and_exit_status_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = script("-m app", "--port", port, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: the page cannot listen on 127.0.0.1, port {port};")
    assert result.stderr.count("\n") == 1 and not result.stdout


def test_the_default_folder_may_be_absent_but_not_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert [str(folder) for folder in model_folders(None)] == ["runs"]
    assert [str(folder) for folder in model_folders(["mine", "."])] == ["mine", "."]
    with pytest.raises(UserError, match="runs"):
        model_folders(["runs"])


def test_the_page_is_for_this_computer_alone_unless_told_otherwise():
    options = parse([])
    assert (options.host, options.port, options.share, options.auth) == ("127.0.0.1", None, False, None)


def test_a_password_may_hold_a_colon():
    assert parse(["--auth", "me:a:b"]).auth == ("me", "a:b")


@pytest.mark.parametrize("wrong", [["--auth", "me"], ["--auth", ":x"], ["--port", "0"], ["--port", "x"]])
def test_flags_that_make_no_sense_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(wrong)
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err
