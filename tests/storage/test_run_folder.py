"""The folder of a run: a new one never shares it, and its files are only ever shortened."""

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from lm.config.schema import RunConfig
from lm.errors import UserError
from lm.storage.run_folder import Run, check_out, create_run, read_metrics
from lm.tokenization.vocabulary import train_tokenizer

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def run(here):
    """A run with two lines of metrics and two samples."""
    run = Run(here / "r")
    run.training.mkdir(parents=True)
    for step in (25, 50):
        run.log({"step": step})
        run.add_sample(step, "the sea")
    return run


def new_run(**settings):
    """Create a run; its folder."""
    with ExitStack() as claims:
        tokenizer = train_tokenizer("char", iter(["the sea"]))
        run, note = create_run(RunConfig.from_flat(settings), "boat", tokenizer, False, claims)
    assert note == "" and run.config.is_file()
    return run.folder


def test_files_are_cut_to_their_sizes_at_a_checkpoint(run):
    lengths, before = run.lengths(), (run.metrics.read_bytes(), run.samples.read_bytes())
    run.log({"step": 75})
    run.add_sample(75, "a boat")
    run.cut(lengths)
    assert (run.metrics.read_bytes(), run.samples.read_bytes()) == before


def test_files_that_are_shorter_than_at_the_checkpoint_are_not_filled_up(run):
    """As after a power loss: zeros would hide all later metrics."""
    lengths = run.lengths()
    for path, lost in ((run.metrics, 5), (run.samples, 3)):
        path.write_bytes(path.read_bytes()[:-lost])
    run.cut(lengths)
    run.log({"step": 75})
    assert read_metrics(run) == [{"step": 25}, {"step": 75}]
    assert run.samples.read_text() == "--- step 25\nthe sea\n\n--- step 50\n"


def test_files_without_a_whole_line_become_empty(run):
    lengths = run.lengths()
    run.metrics.write_bytes(b'{"st')
    run.samples.write_bytes(b"")
    run.cut(lengths)
    assert run.metrics.read_bytes() == run.samples.read_bytes() == b""


def test_runs_that_start_in_the_same_second_take_different_folders(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "now")
    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(lambda _: new_run(), range(8)))
    expected = {"boat-lstm-now", *(f"boat-lstm-now-{number}" for number in range(2, 9))}
    assert {folder.name for folder in folders} == expected


def test_a_default_folder_that_cannot_be_created_is_an_error(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    error = r"^the folder runs/boat-lstm-[\d-]+ cannot be created: No space left on device\.$"
    with pytest.raises(UserError, match=error):
        new_run()


@pytest.mark.parametrize(("link", "out"), [("r", "r"), ("r", "r/a/b"), ("runs", None)])
def test_a_link_to_a_missing_folder_is_named(here, link, out):
    (here / link).symlink_to("missing")
    error = rf"^{link} is a link to a folder that does not exist: create that folder, or name another one"
    with pytest.raises(UserError, match=error):
        new_run(out=out)
    (here / "missing").mkdir()
    assert new_run(out=out).is_dir()


def test_a_name_that_is_too_long_is_shown_in_part():
    error = r"^the name x{79}… is too long: choose a shorter one with --out\.$"
    with pytest.raises(UserError, match=error):
        check_out(RunConfig.from_flat({"out": "x" * 256}), overwrite=False)


def test_out_must_not_be_a_file_or_in_one(here):
    (here / "a.txt").write_text("")
    for out in ("a.txt", "a.txt/x", "a.txt/x/y"):
        with pytest.raises(UserError, match=r"^a\.txt is a file: name another folder with --out\.$"):
            check_out(RunConfig.from_flat({"out": out}), overwrite=True)


def test_overwriting_replaces_only_runs_and_what_a_full_disk_left_of_one(here):
    config = RunConfig.from_flat({"out": "r"})
    Path("r/training").mkdir(parents=True)
    check_out(config, overwrite=True)
    Path("r/training/lock").touch()
    check_out(config, overwrite=True)
    Path("r/training/letter.txt").touch()
    with pytest.raises(UserError, match=r"^r is not a run; --overwrite replaces only runs\.$"):
        check_out(config, overwrite=True)


@pytest.mark.parametrize("damage", [b'{"st', b"\xff\xfe\n", b"5\n", b"\0" * 8 + b"\n"])
def test_metrics_are_read_up_to_a_damaged_line(run, damage):
    with open(run.metrics, "ab") as file:
        file.write(damage + b'\n{"step": 75}\n')
    assert read_metrics(run) == [{"step": 25}, {"step": 50}]


def test_what_is_no_run_cannot_be_continued(here):
    (here / "letter.txt").touch()
    for out in (".", str(here)):
        with pytest.raises(
            UserError, match=rf"^{out} exists and is not a run: name another folder with --out\.$"
        ):
            check_out(RunConfig.from_flat({"out": out}), overwrite=False)


@pytest.mark.parametrize(
    ("name", "quoted"), [("my run", "'my run'"), ("-run", "./-run"), (".", "./"), ("r/..", "r/../")]
)
def test_the_command_that_continues_an_existing_run_can_be_pasted(name, quoted):
    Path(name, "training").mkdir(parents=True)
    Path(name, "training", "config.yaml").touch()
    with pytest.raises(UserError, match=rf"continue it with `.* --resume {quoted}`\.$"):
        check_out(RunConfig.from_flat({"out": name}), overwrite=False)
