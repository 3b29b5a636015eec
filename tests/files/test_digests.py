"""A changed bit in the weights or in a checkpoint is noticed, and folders without digests are still read."""

import json
import os
import random
import shutil
import signal
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lm
from lm.cli.train import main
from lm.errors import ModelError, UserError
from lm.storage.model_folder import PRETRAINED
from tests.conftest import SMALL, script, some_text, started
from tests.end_to_end.test_resume import step_of

FILES = ["model.safetensors"]
FILES += [f"training/checkpoint/{name}" for name in ("state.safetensors", "progress.json")]
FILES += [f"training/checkpoint/{name}" for name in ("good.safetensors", "good.json")]
RECIPE = [*SMALL, "--dataset", "boat.txt", "--steps", "120", "--eval-every", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text, a whole run, and a stopped one that holds a copy to roll back to."""
    folder = tmp_path_factory.mktemp("digests")
    (folder / "boat.txt").write_text(some_text(20_000))
    recipe = [*RECIPE, "--save-every", "3"]
    assert script("train.py", *recipe, "--out", "whole", cwd=folder).returncode == 0
    options, run = [*recipe, "--out", "stopped"], folder / "stopped"
    while not all((run / name).exists() for name in FILES):  # at some steps there is no copy
        before = step_of(run)
        process = started("train.py", *options, cwd=folder)
        while step_of(run) < before + 26 and process.poll() is None:
            time.sleep(0.001)
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
        options = ["--resume", "stopped"]
    return folder


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A copy to damage."""
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_rejected_in_one_line(here, count):
    choose = random.Random(count)
    for number in range(count):
        path = here / "stopped" / FILES[number % len(FILES)]
        whole = path.read_bytes()
        damaged, bit = bytearray(whole), choose.randrange(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError) as resumed:
            main(["--resume", "stopped", "--quiet"])
        messages = [str(resumed.value)]
        if path.name == "model.safetensors":
            with pytest.raises(ModelError) as loaded:
                lm.load("stopped")
            messages.append(str(loaded.value))
        assert all("stopped" in line and "\n" not in line for line in messages), (path, bit, messages)
        path.write_bytes(whole)
    assert main(["--resume", "stopped", "--quiet"]) == 0  # nothing has been changed
    weights = [(here / run / "model.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_the_digests_are_those_of_the_files(here):
    config = json.loads((here / "whole/config.json").read_text())
    weights = sha256((here / "whole/model.safetensors").read_bytes()).hexdigest()
    assert config["sha256"] == {"model.safetensors": weights}
    checkpoint = here / "stopped/training/checkpoint"
    for tensors, described in (("state.safetensors", "progress.json"), ("good.safetensors", "good.json")):
        text = (checkpoint / described).read_text()
        stored = json.loads(text)["sha256"]
        assert stored[tensors] == sha256((checkpoint / tensors).read_bytes()).hexdigest()
        assert stored[described] == sha256(text.replace(stored[described], "0" * 64).encode()).hexdigest()


def test_the_pretrained_model_has_a_digest():
    digest = sha256((PRETRAINED / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads((PRETRAINED / "config.json").read_text())["sha256"]["model.safetensors"] == digest


def without_digests(run):
    """Turn a run into one that an earlier version has written."""
    for name in ("config.json", "training/checkpoint/progress.json", "training/checkpoint/good.json"):
        if (run / name).exists():
            values = json.loads((run / name).read_text())
            del values["sha256"]
            (run / name).write_text(json.dumps(values, indent=2))


def test_runs_of_earlier_versions_load_and_resume(here):
    without_digests(here / "stopped")
    assert lm.load("stopped").generate(max_new_tokens=5, seed=1)
    assert main(["--resume", "stopped", "--quiet"]) == 0
    weights = [(here / run / "model.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert weights[0] == weights[1]
    assert json.loads((here / "stopped/config.json").read_text())["sha256"]


def test_the_error_says_how_to_use_weights_that_were_changed_on_purpose(here):
    path = here / "whole/model.safetensors"
    save_file({name: weight.half() for name, weight in load_file(path).items()}, path)
    with pytest.raises(ModelError, match='yourself, remove "sha256" from its config'):
        lm.load("whole")
    config = json.loads((here / "whole/config.json").read_text())
    del config["sha256"]
    (here / "whole/config.json").write_text(json.dumps(config))
    assert lm.load("whole").generate(max_new_tokens=5, seed=1)


def test_an_edited_config_keeps_its_digest(here):
    config = json.loads((here / "whole/config.json").read_text())
    config["trained_on"]["dataset"] = "another name"
    (here / "whole/config.json").write_text(json.dumps(config))
    assert lm.load("whole").facts["trained_on"]["dataset"] == "another name"


@pytest.mark.parametrize(
    "stored", [7, [], "x", {"model.safetensors": 7}, {"model.safetensors": {}}, {"other": 7}]
)
def test_a_digest_that_is_none_matches_nothing(here, stored):
    config = json.loads((here / "whole/config.json").read_text()) | {"sha256": stored}
    (here / "whole/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is damaged: its SHA-256"):
        lm.load("whole")


def test_deleted_best_weights_are_replaced_by_the_best_of_the_rest(here, capsys):
    weights = here / "stopped/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(
        ModelError, match=r"\. Restore it from a copy, or delete stopped/model\.safetensors to"
    ):
        main(["--resume", "stopped"])
    weights.unlink()
    checkpoint = here / "stopped/training/checkpoint/progress.json"
    values = json.loads(checkpoint.read_text()) | {"best_loss": 0.1}  # never reached again
    checkpoint.write_text(json.dumps({name: values[name] for name in values if name != "sha256"}))
    assert main(["--resume", "stopped"]) == 0
    assert "model.safetensors is missing: the best weights will be chosen" in capsys.readouterr().out
    assert lm.load("stopped").generate(max_new_tokens=5, seed=1)


@pytest.mark.slow
def test_a_damaged_checkpoint_names_the_way_to_start_from_the_best_weights(here):
    state = here / "stopped/training/checkpoint/state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match=r"state\.safetensors is damaged: .* with --init-from stopped\."):
        main(["--resume", "stopped"])
    assert main([*RECIPE, "--init-from", "stopped", "--out", "new", "--quiet"]) == 0


def weights_of(model):
    return torch.cat([weight.flatten() for weight in model.network.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_kill_while_the_weights_are_replaced_leaves_a_model(here, known):
    """The first model may be one of an earlier version, without a digest."""
    if not known:
        without_digests(here / "whole")
    models = [weights_of(lm.load(name)) for name in ("whole", "stopped")]
    code = "import lm, os, lm.storage.saving; model = lm.load('stopped'); replace = os.replace\n"
    code += "def last(source, target):\n    target.endswith(NAME) and AFTER and replace(source, target)\n"
    code += "    target.endswith(NAME) and os._exit(9)\n    replace(source, target)\n"
    code += "os.replace = lambda source, target: last(source, str(target))\nmodel.save('whole')"
    for name, after, expected in [
        ("config.json", False, 0),
        ("config.json", True, 0),
        ("model.safetensors", False, 0),
        ("model.safetensors", True, 1),
    ]:
        (here / "program.py").write_text(code.replace("NAME", repr(name)).replace("AFTER", str(after)))
        assert script(str(here / "program.py"), cwd=here).returncode == 9
        assert torch.equal(weights_of(lm.load("whole")), models[expected]), (name, after)


@pytest.mark.slow
def test_a_model_is_readable_while_it_is_replaced_again_and_again(here):
    models = [lm.load(name) for name in ("whole", "stopped")]
    over, errors = threading.Event(), []

    def replace():
        while not over.is_set():
            for model in models:
                model.save("shared")

    models[0].save("shared")
    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(100):
            try:
                lm.load("shared")
            except UserError as error:
                errors.append(str(error))
    finally:
        over.set()
        thread.join()
    assert not errors


def test_a_file_that_cannot_be_read_is_one_line(here):
    if os.geteuid() == 0:
        Path("whole/model.safetensors").unlink()
        Path("whole/model.safetensors").mkdir()
    else:
        Path("whole/model.safetensors").chmod(0)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        lm.load("whole")
