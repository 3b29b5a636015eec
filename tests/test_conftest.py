"""Under CI=true, nothing but tests that need a GPU can be skipped."""

import pytest

from tests.conftest import script

MODULES = {
    "test_a.py": "import pytest; pytest.importorskip('no_such_module')",
    "test_b.py": "import pytest; pytest.skip('whole', allow_module_level=True)",
    "test_c.py": """
import pytest

@pytest.mark.gpu
def test_gpu():
    pytest.skip("none here")

@pytest.mark.skipif(True, reason="marked")
def test_marked():
    pass

def test_called():
    pytest.skip("called")

def test_passes():
    pass
""",
}


@pytest.fixture
def run(tmp_path):
    """Run those modules with this value of CI and this number of xdist processes, without other plugins."""
    for name, code in MODULES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n    xdist_group\n")
    command = ["-q", "-p", "xdist", "-p", "tests.conftest", "--continue-on-collection-errors", "-n"]
    (tmp_path / "gpu.py").write_text("import torch\ntorch.cuda.is_available = lambda: True\n")
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return lambda ci, processes=1, *more: script(
        "-m pytest", *command, processes, *more, cwd=tmp_path, env={**environment, "CI": ci}
    )


@pytest.mark.slow
def test_skips_are_failures_under_ci(run):
    result = run("true")
    assert result.returncode == 1
    assert "1 failed, 1 passed, 1 skipped, 3 errors" in result.stdout, result.stdout
    for name in ("test_a.py", "test_b.py", "test_c.py::test_marked", "test_c.py::test_called"):
        assert f"{name} must not be skipped under CI: Skipped: " in result.stdout


@pytest.mark.slow
def test_elsewhere_they_are_skips(run):
    result = run("", processes=0)
    assert result.returncode == 0
    assert "1 passed, 5 skipped" in result.stdout, result.stdout


@pytest.mark.slow
def test_where_there_is_a_gpu_no_test_may_be_skipped(run):
    result = run("true", 0, "-p", "gpu")
    assert "2 failed, 1 passed, 3 errors" in result.stdout, result.stdout
    assert "test_c.py::test_gpu must not be skipped under CI: Skipped: none here" in result.stdout
