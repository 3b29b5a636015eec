"""The command line overrides a file of settings, which overrides a preset."""

from pathlib import Path

import pytest
import yaml

import lm
from lm.cli.train import main
from lm.config.presets import PRESETS, Preset
from lm.errors import UserError

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def settings(capsys):
    """The settings of a command, with those of a file if its content is given."""

    def printed(*arguments, file=""):
        if file:
            Path("settings.yaml").write_text(file)
            arguments = ("--config", "settings.yaml", *arguments)
        assert main([*arguments, "--print-config"]) == 0
        return yaml.safe_load(capsys.readouterr().out)

    return printed


def budget(values):
    return {name: values[name] for name in ("steps", "epochs", "max_time") if values[name] is not None}


def test_a_budget_on_the_command_line_replaces_that_of_a_file(settings):
    assert budget(settings(file="steps: 200")) == {"steps": 200}
    assert budget(settings("--max-time", "2s", file="steps: 200")) == {"max_time": 2}
    assert budget(settings("--steps", "5", file="steps: 200")) == {"steps": 5}
    # as in the config.yaml of a run
    assert budget(settings("--epochs", "3", file="steps: 200\nepochs: null\nmax_time: null")) == {"epochs": 3}


def test_a_budget_replaces_that_of_a_preset(settings, monkeypatch):
    monkeypatch.setitem(PRESETS, "short", Preset("short", {"steps": 7, "layers": 1}))
    values = settings("--preset", "short")
    assert budget(values) == {"steps": 7}
    for values in (
        settings("--preset", "short", "--max-time", "2s"),
        settings("--preset", "short", file="max_time: 2"),
        settings("--preset", "short", "--max-time", "2s", file="epochs: 3"),
    ):
        assert budget(values) == {"max_time": 2} and values["layers"] == 1


def test_two_budgets_in_one_place_are_an_error():
    Path("settings.yaml").write_text("steps: 5\nepochs: 1")
    for arguments, where in (
        (["--steps", "5", "--epochs", "1"], ""),
        (["--config", "settings.yaml"], "settings.yaml: "),
    ):
        with pytest.raises(UserError, match=f"^{where}--steps and --epochs cannot be combined"):
            main([*arguments, "--print-config"])


@pytest.mark.parametrize("name", ["quiet", "streaming", "data_report", "tie", "header", "residual"])
def test_what_a_file_turns_on_or_off_can_be_changed(settings, name):
    flag = name.replace("_", "-")
    assert settings(f"--no-{flag}", file=f"{name}: true")[name] is False
    assert settings(f"--{flag}", file=f"{name}: false")[name] is True


@pytest.mark.parametrize(("count", "length"), [(15_001, 4), (5_000, 400)])
def test_more_texts_than_the_settings_of_a_run_can_name_are_an_error(count, length):
    texts = [f"{number:0{length}}" for number in range(count)]
    with pytest.raises(UserError, match=rf"^--dataset names {count:,} texts, too many for the settings"):
        lm.train(texts, out="r")
    assert not Path("r").exists()
