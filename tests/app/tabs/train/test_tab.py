"""What the Train tab does with an upload, and who has none; test_page_train.py tests it in a browser."""

import shutil
from contextvars import copy_context

import gradio as gr
import pytest
from gradio.context import LocalContext

from app.jobs.estimate import Estimate, Preview
from app.jobs.job import Job
from app.jobs.queue import JobQueue
from app.jobs.settings import check_settings
from app.page import build
from app.registry import ModelRegistry
from app.tabs.train import display
from app.tabs.train.form import Form
from app.tabs.train.tab import TrainTab
from lm.errors import UserError


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"a text\n", b""])
def test_an_upload_is_copied_for_each_visitor_with_the_same_file_before_it_is_deleted(tmp_path, content):
    jobs = JobQueue(tmp_path / "runs")
    with gr.Blocks(), gr.Tab("Train") as tab:
        trainer = TrainTab(jobs, tab, ModelRegistry([tmp_path]))
    upload = tmp_path / "uploads" / "text.txt"
    upload.parent.mkdir()
    upload.write_bytes(content)
    if content:
        chosen = [trainer.on_upload(str(upload), "")[0].value for _ in range(2)]
        (text,) = jobs.uploads.all()
        assert text.path.read_bytes() == content and chosen == [text.dataset] * 2
    else:
        with pytest.raises(gr.Error):
            trainer.on_upload(str(upload), "")
    assert upload.stat().st_mtime == 0  # the first to be deleted


def test_the_form_is_filled_with_the_settings_of_a_job(tmp_path, trained_run):
    jobs, models = JobQueue(tmp_path), ModelRegistry([trained_run.parent])
    with gr.Blocks():
        form = Form(jobs, models)
    dataset = jobs.uploads.add_pasted("text;year\nA boat.;1\n").dataset
    sent = {
        "dataset": dataset,
        "cell": "gru",
        "tokenizer": "byte",
        "hidden_size": "64",
        "layers": 1,
        "max_time": "90s",
        "encoding": "cp1252",
        "encoding_errors": "replace",
        "text_column": "",
        "header": False,
        "json_field": "data",
        "document_separator": "line",
    }
    settings = check_settings(sent, jobs.uploads)
    for base, other in ((None, {}), (trained_run, {"init_from": str(trained_run)})):
        job = Job("20260101-000000-abcdef", "boat", "boat.txt", "boat", settings | other)
        filled = [getattr(value, "value", value) for value in form.filled(job)]
        assert form.chosen("", *filled) == (sent, base)


def test_a_form_whose_text_is_gone_does_not_read_the_default_text_in_its_way(tmp_path, monkeypatch):
    jobs, warnings = JobQueue(tmp_path), []
    monkeypatch.setattr("app.tabs.train.form.show_warning", warnings.append)
    with gr.Blocks():
        form = Form(jobs, ModelRegistry([tmp_path]))
    text = jobs.uploads.add_pasted("text;year\nA boat.;1\n")
    reading = form.reading.fields
    kept = ["boat", text.dataset, "", "", *(component.value for component in (*form.network, form.time))]
    kept += ["cp1252", *(component.value for component in reading[1:])]

    handler = copy_context()  # in an event handler, Gradio's components have only their arguments
    handler.run(LocalContext.in_event_listener.set, True)

    def restored():
        values = handler.run(form.restored, *kept)
        return [v.constructor_args["value"] if isinstance(v, gr.Dropdown) else v for v in values]

    assert restored() == [*kept, text.dataset] and not warnings
    shutil.rmtree(text.path.parent)
    defaults = [component.value for component in reading]
    assert restored() == ["boat", "python", *kept[2 : -len(reading)], *defaults, "python"]
    assert warnings == ["The chosen text no longer exists: choose another one."]


def test_the_settings_of_a_job_whose_model_to_start_from_is_gone_do_not_become_those_of_a_new_model(tmp_path):
    with gr.Blocks():
        form = Form(JobQueue(tmp_path), ModelRegistry([tmp_path]))
    settings = {"dataset": ["python"], "init_from": str(tmp_path / "gone")}
    with pytest.raises(UserError, match="the model 'gone', from which this job started, no longer exists"):
        form.filled(Job("20260101-000000-abcdef", "boat", "boat.txt", "boat", settings))


def test_the_settings_of_a_job_whose_text_is_gone_do_not_become_those_of_the_default_text(tmp_path):
    jobs = JobQueue(tmp_path)
    with gr.Blocks():
        form = Form(jobs, ModelRegistry([tmp_path]))
    text = jobs.uploads.add_pasted("A boat.\n")
    settings = check_settings({"dataset": text.dataset}, jobs.uploads)
    text.path.unlink()
    with pytest.raises(UserError, match="this text no longer exists"):
        form.filled(Job("20260101-000000-abcdef", "boat", "boat.txt", "boat", settings))


def test_the_field_for_a_pasted_text_takes_several_lines_and_enter_stores_them(tmp_path):
    with gr.Blocks():
        form = Form(JobQueue(tmp_path), ModelRegistry([tmp_path]))
    # What Gradio makes a <textarea> in which Enter submits.
    assert form.pasted.lines == 1 and form.pasted.max_lines > 1 and form.pasted.max_length is None


def test_a_character_and_its_count_are_on_one_line():
    rows = {
        "Text": "boat: 1 document, --text-column",
        "Example": "in 1850 --text-column",
        "Most common": "' ' 1,200  e 85  '\\n' 9",
    }
    report = display.report(Preview(rows), {})
    assert "&#x27; &#x27;\xa01,200  e\xa085  &#x27;\\n&#x27;\xa09<" in report
    assert "boat: 1 document, “Text column”" in report and "in 1850 --text-column" in report


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [
        (1234.5, "1,234 passes"),
        (240, "240 passes"),
        (2.44, "2.4 passes"),
        (1.01, "1 pass"),
        (0.034, "0.034 passes"),
    ],
)
def test_passes_over_the_text_are_a_plain_number(epochs, shown):
    resolved = {"layers": 1, "hidden_size": 64}
    estimate = Estimate(5000, resolved, 60.0, 100, epochs, 2.0, 1000.0, 10**8, 10**6)
    assert f"characters/s, {shown} over the text" in display.report(Preview({}, estimate=estimate), {})


@pytest.mark.slow
def test_a_visitor_who_waits_for_the_hub_does_not_keep_others_from_starting(tmp_path):
    page = build(ModelRegistry([tmp_path]), JobQueue(tmp_path))
    (start,) = (event for event in page.fns.values() if event.name == "on_start")
    assert start.concurrency_limit > 1


@pytest.mark.slow
def test_a_public_page_has_no_train_tab(tmp_path):
    shared = build(ModelRegistry([tmp_path]))
    labels = [getattr(block, "id", None) for block in shared.blocks.values() if type(block).__name__ == "Tab"]
    assert "train" not in labels and "write" in labels
