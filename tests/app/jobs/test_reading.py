"""How uploads of every kind are read: what there is to choose, and what is wrong, as `lm train` says it."""

import csv
import gzip
import io
import json
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest

from app.jobs import reading
from app.jobs.reading import Reading
from lm.config.schema import DataConfig
from lm.data.find_source import find_source
from lm.errors import UserError
from lm.memorization.training_text import find_training_text
from tests.app.jobs.conftest import SHAPE, run_of, until, wait
from tests.conftest import ROOT, some_text

pytestmark = pytest.mark.usefixtures("forked_jobs")
FRENCH = "Le café était fermé, et la mer était calme. Où est passée la clé de l'hôtel ?\n"
COLUMNS = {"author": "Jane Doe", "quote": "The sea was calm.", "remark": "From a letter.", "year": 1900}


def table(rows=200):
    return [{**COLUMNS, "quote": f"The sea was calm {n}."} for n in range(rows)]


def as_csv(rows, **style):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **style)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def as_arrow(rows):
    out = io.BytesIO()
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_zip(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "."), data)
    return out.getvalue()


TABLES = {
    "a.csv": as_csv(table(), delimiter=";"),
    "a.tsv": as_csv(table(), delimiter="\t"),
    "a.json": json.dumps(table()).encode(),
    "a.jsonl": "\n".join(map(json.dumps, table())).encode(),
    "a.ndjson": "\n".join(map(json.dumps, table())).encode(),
    "a.parquet": as_parquet(table()),
    "a.arrow": as_arrow(table()),
    "a.csv.gz": gzip.compress(as_csv(table())),
    "a.zip": as_zip(one_csv=as_csv(table()), two_csv=as_csv(table(50))),
}
TEXTS = {
    "a.txt": some_text(500).encode(),
    "a.md": some_text(501).encode(),
    "tune.abc": some_text(502).encode(),
    "a.txt.gz": gzip.compress(some_text(503).encode()),
    "b.zip": as_zip(one_txt=some_text(504), two_txt=some_text(505)),
    "a.utf16.txt": some_text(506).encode("utf-16"),
}


@pytest.fixture
def upload_bytes(queue, tmp_path):
    def add(name, data):
        (tmp_path / name).write_bytes(data)
        return queue.uploads.add(tmp_path / name)

    return add


def trained_text(queue, job):
    return "".join(find_training_text(run_of(queue, job).folder))


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_a_table_are_offered_and_one_must_be_chosen(queue, upload_bytes, name):
    text = upload_bytes(name, TABLES[name])
    found = queue.read({"dataset": text.dataset})
    assert list(found.columns) == ["author", "quote", "remark", "year"] and found.column == ""
    assert found.columns["author"] == "'Jane Doe'" and found.columns["year"].strip("'") == "1900"
    assert found.error.startswith(f"several columns of {name.partition('.')[0]} contain text; choose one")
    chosen = queue.read({"dataset": text.dataset, "text_column": "quote"})
    assert chosen == replace(found, error="")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet"])
def test_a_wrong_column_is_an_error(queue, upload_bytes, name):
    wrong = queue.read({"dataset": upload_bytes(name, TABLES[name]).dataset, "text_column": "qoute"})
    assert "has no column 'qoute'" in wrong.error and "did you mean 'quote'?" in wrong.error


def test_the_automatic_choice_is_reported(queue, upload_bytes):
    rows = [{"id": n, "label": "good", "review": f"The sea was calm {n}."} for n in range(20)]
    found = queue.read({"dataset": upload_bytes("a.csv", as_csv(rows)).dataset})
    assert found == Reading(
        "csv", {"label": "'good'", "review": "'The sea was calm 0.'", "id": "'0'"}, "review"
    )


def test_all_splits_are_read_from_the_same_column(queue, upload_bytes):
    train, valid = ([{"id": n, name: f"The sea was calm {n}."} for n in range(20)] for name in ("a", "b"))
    text = upload_bytes("a.zip", as_zip(train_csv=as_csv(train), valid_csv=as_csv(valid)))
    assert "the split 'validation', a has no column 'a'" in queue.read({"dataset": text.dataset}).error
    text = upload_bytes("b.zip", as_zip(train_csv=as_csv(train), valid_csv=as_csv(train)))
    assert queue.read({"dataset": text.dataset}).error == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_text_files_of_any_name_are_read(queue, upload_bytes, name):
    assert queue.read({"dataset": upload_bytes(name, TEXTS[name]).dataset}) == Reading("text")


def test_texts_that_were_not_uploaded_are_not_read(queue, monkeypatch):
    monkeypatch.setattr(reading, "read", None)
    assert queue.read({}) == Reading("text") and queue.read({"dataset": "owner/name"}) == Reading()
    with pytest.raises(UserError, match="not an encoding"):
        queue.read({"encoding": "no such codec"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.zip"])
def test_the_error_for_another_encoding_is_that_of_the_command_line(queue, upload_bytes, name, tmp_path):
    data = {"a.txt": FRENCH * 20, "a.csv": "text\n" + f'"{FRENCH}"\n' * 20, "a.zip": FRENCH * 20}[name]
    data = data.encode("cp1252")
    text = upload_bytes(name, as_zip(one_txt=data) if name == "a.zip" else data)
    error = queue.read({"dataset": text.dataset}).error
    assert "it looks like cp1252 (" in error and "Le café était fermé, et la mer" in error
    assert error.endswith("use --encoding cp1252.")
    with pytest.raises(UserError) as caught:
        list(find_source(str(text.path), DataConfig()).read("train"))
    assert error == str(caught.value).replace(f"{text.path.parent}/", "") and "/" not in error.replace(
        "//", ""
    )
    assert queue.read({"dataset": text.dataset, "encoding": "cp1252"}).error == ""
    with pytest.raises(UserError, match="it looks like cp1252") as caught:
        queue.preview({"dataset": text.dataset})
    assert str(caught.value) == error


def test_each_encoding_shows_how_it_reads_the_line(queue, upload_bytes):
    text = upload_bytes("a.txt", ("The sea.\n" * 100 + "Море было тихо.\n" * 50).encode("koi8_r"))
    encodings = queue.read({"dataset": text.dataset}).encodings
    assert encodings["koi8_r"] == "Море было тихо." and "Море" not in encodings["cp1251"]
    assert "utf_8" not in encodings and "big5" not in encodings  # in which it is not valid
    damaged = upload_bytes("b.txt", ("Море было тихо.\n" * 50).encode() + b"\xff")
    assert queue.read({"dataset": damaged.dataset}).encodings == {}


def test_damaged_characters_are_replaced_on_request(queue, upload_bytes):
    text = upload_bytes("a.txt", FRENCH.encode() * 20 + b"\xff\n")
    assert "a damaged character" in queue.read({"dataset": text.dataset}).error
    assert queue.read({"dataset": text.dataset, "encoding_errors": "replace"}).error == ""


def test_reading_ends_at_the_limit_and_a_crash_is_reported(queue, upload_bytes, monkeypatch):
    text = upload_bytes("a.txt", b"abc")
    assert queue.read({"dataset": text.dataset}, limit=0.01) == Reading()
    monkeypatch.setattr("app.jobs.subprocess_call.command", lambda *_: ["sh", "-c", "echo oops >&2; exit 3"])
    assert queue.read({"dataset": text.dataset}).error == "cannot read the text: oops"
    monkeypatch.setattr("app.jobs.subprocess_call.command", lambda *_: ["sh", "-c", "kill -9 $$"])
    assert "not enough memory" in queue.read({"dataset": text.dataset}).error


def test_a_reader_ends_by_itself_where_no_server_is_left():
    code = "import time; from app.jobs.subprocess_call import end_after; end_after(1); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30).returncode == -signal.SIGALRM


@pytest.mark.slow
def test_the_preview_shows_column_example_and_format(queue, upload_bytes):
    text = upload_bytes("a.csv", TABLES["a.csv"])
    settings = {**SHAPE, "dataset": text.dataset, "text_column": "quote", "max_time": "10s"}
    found = queue.preview(settings)
    assert found.rows["Column"] == "'quote', chosen with --text-column; 200 rows"
    assert found.rows["Example"] == "The sea was calm 0."
    assert found.rows["Format"] == "a semicolon between cells, header author, quote, remark, year"
    # It is kept, but the same text read in another way is another preview.
    assert queue.preview(settings, limit=0.01).rows == found.rows
    with pytest.raises(UserError, match="reading the text takes more than 0 seconds"):
        queue.preview({**settings, "text_column": "remark"}, limit=0.01)


@pytest.mark.slow
def test_jobs_train_on_the_text_as_it_is_read_even_if_they_pause(queue, upload_bytes):
    rows = [{"first": f"Où est l'été {n} ?", "other": some_text(40, n)} for n in range(400)]
    text = upload_bytes("a.csv", as_csv(rows).decode().encode("cp1252"))
    settings = {"dataset": text.dataset, "encoding": "cp1252", **SHAPE}
    paused = queue.add({**settings, "text_column": "first", "steps": 300})
    other = queue.add({**settings, "text_column": "other", "steps": 2})  # of the same text
    wait(lambda: queue.progress(paused.id).step > 20)
    queue.pause(paused.id)
    until(queue, paused, "paused")
    until(queue, other, "done")
    queue.resume(paused.id)
    until(queue, paused, "done")
    assert queue.get(paused.id).settings["encoding"] == "cp1252"
    assert trained_text(queue, paused).startswith("Où est l'été 0 ?")
    assert trained_text(queue, other).startswith(rows[0]["other"])
    assert "first" not in trained_text(queue, paused)


def test_documents_are_separated(queue, upload_bytes):
    text = upload_bytes("a.txt", "".join(f"{some_text(100, n)}\n%%\n" for n in range(100)).encode())
    separator = "\\n%%\\n"
    job = queue.add({"dataset": text.dataset, **SHAPE, "steps": 2, "document_separator": separator})
    until(queue, job, "done")
    assert "%%" not in trained_text(queue, job)
    assert "a: 90 documents" in queue.store.log_of(job.id).read_text()


@pytest.mark.slow
def test_the_path_of_an_upload_is_not_shown(queue, upload_bytes):
    text = upload_bytes("a.csv", b"id,text\n1,Calm, and then not.\n" + b"2,A boat went out.\n" * 300)
    job = queue.add({"dataset": text.dataset, **SHAPE, "steps": 2})
    until(queue, job, "done")
    (warning,) = [line for line in queue.progress(job.id).warnings if "more cells than" in line]
    assert warning.startswith("a.csv has 1 row with more cells")
    failed = queue.add({"dataset": text.dataset, **SHAPE, "steps": 2, "document_separator": "line"})
    message = until(queue, failed, "failed").message
    assert message.startswith("--document-separator applies only to text files: leave it out for")
    text = upload_bytes("a.txt", FRENCH.encode("cp1252"))
    failed = queue.add({"dataset": text.dataset, **SHAPE, "steps": 2})
    assert until(queue, failed, "failed").message.startswith("a.txt is not UTF-8")
