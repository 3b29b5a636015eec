"""The notebooks run from top to bottom, and show what they did when they were last run.

`python -m tests.test_notebooks` runs them and stores their outputs.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_docs import check_python

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
# Tags of cells whose outputs are not the same on every machine, and whose text contains times and speeds.
VARIES, TIMED = "varies", "timed"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of all its cells, run in an empty folder."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            outputs = joined(cell.outputs)
            if TIMED in cell.metadata.get("tags", []):
                outputs = [output for output in outputs if output.output_type != "stream"]
            cell.outputs = outputs
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The outputs, with those that continue the same stream joined."""
    result: list[nbformat.NotebookNode] = []
    for output in outputs:
        output.get("metadata", {}).clear()
        last = result[-1] if result else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            result.append(output)
    return result


@pytest.mark.slow
@each_notebook
def test_runs_and_computes_the_stored_numbers(path):
    stored = nbformat.read(path, as_version=4)
    for cell, before in zip(executed(path).cells, stored.cells, strict=True):
        if cell.cell_type == "code" and VARIES not in cell.metadata.get("tags", []):
            assert cell.outputs == before.outputs, cell.source


@each_notebook
def test_imports_what_exists(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            check_python(re.sub(r"^( *)%(?:.*\\\n)*.*$", r"\1pass", cell.source, flags=re.MULTILINE))


@each_notebook
def test_stored_outputs_have_neither_paths_nor_errors(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(?:root|home|tmp|Users)/", text)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or cell.execution_count, "run python -m tests.test_notebooks"
        assert all(output.output_type != "error" for output in cell.get("outputs", []))


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or NOTEBOOKS):
        nbformat.write(executed(path), path)
