"""Training, scores and streams in the kernel of a notebook."""

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from lm.console.notebook import in_notebook
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

CELLS = [
    """
import signal
import sys

import lm

settings = {"layers": 1, "hidden_size": 8, "batch_size": 4, "bptt": 16, "steps": 300, "sample_every": 0}
model = lm.train("boat.txt", out="first", **settings)
model
""",
    "%run {root}/train.py boat.txt --layers 1 --hidden-size 8 --steps 20 --out second",
    """
def interrupt(row):
    if row["step"] == 100:
        signal.raise_signal(signal.SIGINT)

lm.train("boat.txt", out="third", on_step=interrupt, **settings)
""",
    'print(lm.train(resume="third", quiet=True).history == [] or "resumed", "ipywidgets" in sys.modules)',
    'model.score("the <b>sea")',
    'model.stream("the sea", max_new_tokens=20, seed=1)',
    'print("".join(piece.text for piece in model.stream("the sea", max_new_tokens=20, seed=1)))',
]


class Client(NotebookClient):
    """Also collects the contents with which outputs are updated."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "update_display_data":
            cell.metadata.setdefault("updates", []).append(msg["content"]["data"])
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def cells(tmp_path_factory, text_file):
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "boat.txt").write_bytes(text_file.read_bytes())
    notebook = new_notebook(cells=[new_code_cell(cell.replace("{root}", str(ROOT))) for cell in CELLS])
    resources = {"metadata": {"path": str(folder)}}
    Client(notebook, timeout=300, kernel_name="python3", resources=resources, allow_errors=True).execute()
    return notebook.cells


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def data(cell, kind):
    return [output.data for output in cell.outputs if output.output_type == kind]


def test_training_shows_a_bar_and_a_curve_and_leaves_the_curve(cells):
    (curve,) = data(cells[0], "display_data")
    assert set(curve) == {"image/svg+xml", "text/plain"}
    assert curve["image/svg+xml"].startswith("<svg") and "boat, LSTM" in curve["image/svg+xml"]
    bars = [update["text/html"] for update in cells[0].metadata.updates if "text/html" in update]
    assert bars and all("<progress value=" in bar and "step " in bar for bar in bars)
    (result,) = data(cells[0], "execute_result")
    assert result["text/plain"].startswith("LanguageModel('first', lstm, 1 layer of 8 units, ")
    text = printed(cells[0])
    assert "Model    LSTM, 1 layer of 8 units" in text and "Validation  " in text and "\x1b" not in text


def test_the_script_runs_too(cells):
    assert all(output.output_type != "error" for output in cells[1].outputs)
    assert data(cells[1], "display_data")[0]["image/svg+xml"].startswith("<svg")
    assert "python generate.py second" in printed(cells[1])


def test_the_stop_button_saves_and_raises(cells):
    (error,) = [output for output in cells[2].outputs if output.output_type == "error"]
    assert error.ename == "KeyboardInterrupt"
    assert "Stopped and saved. Resume with: lm.train(resume='third')\n" in printed(cells[2])
    assert printed(cells[3]) == "resumed False\n"


def test_scores_and_streams_display_themselves(cells):
    (result,) = data(cells[4], "execute_result")
    assert result["text/html"].startswith("<div style=") and "&lt;unk&gt;</span>" in result["text/html"]
    assert data(cells[5], "execute_result") == []
    assert printed(cells[5]) == "the sea" + printed(cells[6]).removesuffix("\n")


def test_this_is_no_notebook():
    assert not in_notebook()
