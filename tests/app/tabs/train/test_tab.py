"""What the Train tab does with an upload; tests/end_to_end/test_page_train.py tests the tab in a browser."""

import gradio as gr
import pytest

from app.jobs.queue import JobQueue
from app.tabs.train import tab as training


@pytest.mark.parametrize("content", [b"a text\n", b""])
def test_the_copy_that_gradio_made_of_an_upload_is_deleted(tmp_path, content):
    jobs = JobQueue(tmp_path / "runs")
    with gr.Blocks(), gr.Tab("Train") as tab:
        trainer = training.build(jobs, tab)
    upload = tmp_path / "uploads" / "text.txt"
    upload.parent.mkdir()
    upload.write_bytes(content)
    if content:
        trainer.on_upload(str(upload))
        assert [text.path.read_bytes() for text in jobs.uploads.all()] == [content]
    else:
        with pytest.raises(gr.Error):
            trainer.on_upload(str(upload))
    assert not upload.exists()
