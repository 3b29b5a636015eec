"""Models on the Hub: pushed, loaded, generated with, and named in the cards of models trained from them."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from lm.storage.model_folder import PRETRAINED
from tests.conftest import script
from tests.end_to_end.hub import OFFLINE, TINY, put, put_dataset


@pytest.mark.slow
def test_pushed_model_loads_and_generates_the_same_text(hub):
    (hub.root / "push.py").write_text(
        "import lm\n"
        "from lm.storage.model_folder import PRETRAINED\n"
        "model = lm.load(PRETRAINED, device='cpu')\n"
        "model.push_to_hub('org/model')\n"
        "print(model.generate('def ', max_new_tokens=40, seed=7)[0].text)\n"
        "print(lm.load('org/model', device='cpu').generate('def ', max_new_tokens=40, seed=7)[0].text)\n"
    )
    pushed = script(str(hub.root / "push.py"), cwd=hub.root)
    assert pushed.returncode == 0, pushed.stderr
    size = len(pushed.stdout) // 2
    assert pushed.stdout[:size] == pushed.stdout[size:] != ""
    hub.stop()  # a model that was downloaded once needs no network
    arguments = ["org/model", "--prompt", "def ", "--length", "40", "--seed", "7", "--device", "cpu"]
    result = script("generate.py", *arguments, cwd=hub.root)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "def " + pushed.stdout[:size]


@pytest.mark.slow
def test_run_names_the_dataset_and_the_model_that_it_started_from(hub):
    put(hub, "org/set/README.md", "---\nlanguage: [en, fr]\nlicense: cc-by-4.0\n---\n")
    put_dataset(hub)
    shutil.copytree(PRETRAINED, hub.root / "models" / "org" / "base")
    fresh = ["--dataset", "org/set"]
    tuned = [*fresh, "--init-from", "org/base", "--out", "tuned", "--quiet", "--overwrite"]
    budget = ["--batch-size", "4", "--bptt", "8", "--steps", "2", "--sample-every", "0"]
    result = script("train.py", *tuned, *budget, cwd=hub.root)
    assert result.returncode == 0, result.stderr
    resumed = script("train.py", "--resume", "tuned", "--steps", "4", cwd=hub.root, env=OFFLINE)
    assert resumed.returncode == 0, resumed.stderr
    config = json.loads((hub.root / "tuned" / "config.json").read_text())
    trained_on, revision = config["trained_on"], hub.sha("org/set")
    facts = {"id": "org/set", "revision": revision, "config": "default"}
    facts |= {"language": ["en", "fr"], "license": "cc-by-4.0"}
    assert (trained_on["dataset"], trained_on["hub_datasets"]) == ("org/set", [facts])
    assert (trained_on["init_from"], trained_on["base_model"]) == ("org/base", "org/base")
    settings = trained_on["settings"]
    assert (settings["dataset"], settings["dataset_revision"]) == (["org/set"], revision)
    assert (settings["init_from"], settings["steps"], "tokenizer" in settings) == ("org/base", 4, False)
    card = ModelCard.load(hub.root / "tuned" / "README.md")
    data = card.data
    assert (data.datasets, data.base_model, data.language) == (["org/set"], "org/base", ["en", "fr"])
    assert data.license is None  # that of the dataset is not that of the model
    assert {one.dataset_revision for one in data.eval_results} == {revision}
    assert "[org/set](https://huggingface.co/datasets/org/set), license `cc-by-4.0`." in card.text
    assert "Fine-tuned from [org/base](https://huggingface.co/org/base)." in card.text


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_reads_its_commit_of_a_dataset_that_has_changed(hub, streaming):
    put_dataset(hub)
    how = ["--streaming", "--tokenizer", "byte"] if streaming else []
    command = ["--dataset", "org/set", "--test-split", "test", *how, *TINY, "--out", "run"]
    assert script("train.py", *command, "--steps", "3", cwd=hub.root).returncode == 0
    revision = hub.sha("org/set")
    (hub.root / "datasets/org/set").rename(hub.root / "datasets/org/set@before")
    put_dataset(hub, shards=2)
    assert hub.sha("org/set") != revision
    shutil.rmtree(hub.root / "cache")
    result = script("train.py", "--resume", "run", "--steps", "6", cwd=hub.root)
    assert result.returncode == 0, result.stderr
    config = json.loads((hub.root / "run" / "config.json").read_text())
    assert config["trained_on"]["hub_datasets"][0]["revision"] == revision
    scored = script("-m lm evaluate", "run", "--split", "test", "--json", cwd=hub.root)
    assert scored.returncode == 0, scored.stderr
    loss = json.loads(scored.stdout)["scores"]["plain"]["loss"]["value"]
    assert loss == pytest.approx(config["test"]["loss"], rel=1e-2)  # perhaps in another precision
