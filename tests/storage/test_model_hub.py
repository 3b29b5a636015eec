"""Models on the Hub: which revision is loaded, with which token, and where uploads go.

The real huggingface_hub talks to tests/hub/.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from huggingface_hub import constants

import lm
from lm.config.schema import ModelConfig
from lm.errors import ModelError, UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.storage.model_folder import PRETRAINED, hub_id
from lm.tokenization.vocabulary import train_tokenizer
from tests.hub.handler import ACCEPTED, TOKEN
from tests.hub.server import HubServer


def make(seed=0) -> LanguageModel:
    torch.manual_seed(seed)
    tokenizer = train_tokenizer("char", iter(["the sea was calm\n"]))
    return LanguageModel(RecurrentLM(ModelConfig(hidden_size=4, layers=1), tokenizer.vocab_size), tokenizer)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with the model org/boat, whose main branch has seed 0, v1 seed 1 and v2 seed 2."""
    with HubServer(tmp_path / "hub") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.chdir(tmp_path)
        for seed, name in enumerate(("boat", "boat@v1", "boat@v2")):
            make(seed).save(server.root / "models/org" / name)
        yield server


def seed_of(model: LanguageModel) -> int:
    """The seed that `make` had."""
    weight = model.network.embedding.weight
    (seed,) = [seed for seed in range(9) if torch.equal(make(seed).network.embedding.weight, weight)]
    return seed


@pytest.mark.slow
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub):
    commit = hub.sha("org/boat", "v2", kind="models")
    assert seed_of(lm.load("org/boat")) == 0
    assert seed_of(lm.load("org/boat", revision="v1")) == 1
    assert seed_of(lm.load("org/boat", revision=commit)) == 2
    assert seed_of(lm.load("org/boat@v1")) == 1
    assert seed_of(lm.load(f"org/boat@{commit}")) == 2
    assert seed_of(LanguageModel.from_pretrained("org/boat", revision="v1")) == 1


def test_the_token_of_an_argument_is_used(hub):
    hub.private.add("org/boat")
    with pytest.raises(
        ModelError, match=r"no Hub model 'org/boat'; if it is private, run `hf auth login` or"
    ):
        lm.load("org/boat")
    with pytest.raises(ModelError, match="the Hub does not accept the token"):
        lm.load("org/boat", token="hf_wrong")
    with pytest.raises(ModelError, match="there is no token on this machine; run `hf auth login`"):
        lm.load("org/boat", token=True)
    assert seed_of(lm.load("org/boat", token=TOKEN)) == 0


def test_a_stored_token_is_used_unless_it_is_declined(hub, monkeypatch):
    hub.private.add("org/boat")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ModelError, match="if it is private"):
        lm.load("org/boat", token=False)
    assert seed_of(lm.load("org/boat")) == 0


def test_terms_that_are_not_accepted_are_named(hub):
    hub.gated.add("org/boat")
    with pytest.raises(ModelError, match="'org/boat' requires you to accept its terms: do that on its page"):
        lm.load("org/boat", token=TOKEN)
    assert seed_of(lm.load("org/boat", token=ACCEPTED)) == 0


def test_loading_a_model_prints_nothing(hub, capfd):
    lm.load("org/boat")
    lm.load("org/boat")
    assert capfd.readouterr() == ("", "")


def test_a_cached_model_needs_no_network(hub):
    with pytest.raises(
        ModelError, match=r"'org/boat' is not on this disk, and local_files_only is set: load"
    ):
        lm.load("org/boat", local_files_only=True)
    lm.load("org/boat", revision="v1")
    requests = len(hub.requests)
    assert seed_of(lm.load("org/boat", revision="v1", local_files_only=True)) == 1
    with pytest.raises(ModelError, match="'org/boat@v2' is not on this disk"):
        lm.load("org/boat@v2", local_files_only=True)
    assert len(hub.requests) == requests
    hub.stop()
    assert seed_of(lm.load("org/boat", revision="v1")) == 1
    with pytest.raises(ModelError, match=r"is not on this disk, and the Hub cannot be reached \(.+\): load"):
        lm.load("org/boat")


def test_the_environment_can_forbid_downloads(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="is not on this disk, and HF_HUB_OFFLINE is set"):
        lm.load("org/boat")
    assert not hub.requests


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("org/boat", {"revision": "v9"}, "'org/boat' has no revision 'v9'; its page lists"),
        ("org/boat@v9", {}, "'org/boat' has no revision 'v9'; its page lists"),
        ("org/boat@v1", {"revision": "v1"}, "names a revision already: leave out `revision`"),
        ("org/ship", {}, "there is no folder and no Hub model 'org/ship'"),
        ("org/a--b", {}, "cannot download the Hub model 'org/a--b': .*Cannot have -- or"),
        ("org/boat@", {}, "there is no model folder 'org/boat@'"),
        ("./org/boat", {}, "there is no model folder"),
        ("boat", {}, "there is no model folder"),
        ("", {}, "there is no model folder ''"),
        ("pretrained", {"revision": "v1"}, "pretrained is not on the Hub and has no revisions: leave out"),
        (PRETRAINED, {"revision": "v1"}, "is not on the Hub and has no revisions: leave out `revision`"),
    ],
)
def test_a_model_that_is_not_there_is_a_one_line_error(hub, model, options, message):
    with pytest.raises(ModelError, match=message) as error:
        lm.load(model, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "gpt2"}', "config.json has no format_version: it does not describe an lm model."),
        ('{"format_version": 9}', "this lm reads at most version 1: update lm."),
        (None, "is not a model folder: it has no config.json."),
    ],
)
def test_the_weights_of_other_models_are_not_downloaded(hub, config, message):
    folder = hub.root / "models/org/boat"
    (folder / "config.json").unlink()
    if config:
        (folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match=message):
        lm.load("org/boat")
    assert not any("safetensors" in request.path for request in hub.requests)


def test_the_options_for_the_hub_do_not_affect_other_models(hub, tmp_path):
    make(3).save(tmp_path / "org/boat@v1")
    assert seed_of(lm.load(tmp_path / "org/boat@v1", token="hf_wrong", local_files_only=True)) == 3
    assert seed_of(lm.load("org/boat@v1", local_files_only=True)) == 3  # a folder takes precedence
    assert lm.load("pretrained", token=TOKEN, local_files_only=True).network.vocab_size == 221
    assert not hub.requests


def test_only_a_name_that_is_found_on_the_hub_is_an_id(hub, tmp_path):
    names = ("org/boat", "org/boat@v1", "pretrained", "boat", "./org/boat", str(tmp_path))
    assert [hub_id(name) for name in names] == ["org/boat", "org/boat", None, None, None, None]
    make().save(tmp_path / "org/boat")
    assert hub_id("org/boat") is None and hub_id("org/boat@v1") == "org/boat"


def test_save_pretrained_saves(hub, tmp_path):
    make(4).save_pretrained(tmp_path / "model")
    assert seed_of(LanguageModel.from_pretrained(tmp_path / "model")) == 4


def snippet(hub, repo: str) -> str:
    card = (hub.root / "models" / repo / "README.md").read_text()
    return next(line for line in card.splitlines() if "lm.load" in line)


def test_an_upload_creates_the_model_and_says_how_to_load_it(hub):
    assert make(5).push_to_hub("org/new", token=TOKEN) == f"{hub.url}/org/new"
    assert seed_of(lm.load("org/new")) == 5
    assert snippet(hub, "org/new") == 'model = lm.load("org/new")'
    assert hub.commits == [("org/new", "main", "Upload model")]
    assert not hub.private


def test_a_name_without_an_owner_is_that_of_the_user(hub):
    assert make(5).push_to_hub("mine", token=TOKEN, private=True) == f"{hub.url}/me/mine"
    assert snippet(hub, "me/mine") == 'model = lm.load("me/mine")'
    assert hub.private == {"me/mine"}
    assert seed_of(lm.load("me/mine", token=TOKEN)) == 5


@pytest.mark.slow
def test_an_upload_goes_to_the_branch_with_its_message(hub):
    for seed in (5, 6):  # the branch is created once
        make(seed).push_to_hub("org/boat", token=TOKEN, revision="next", commit_message=f"Seed {seed}")
        assert seed_of(lm.load("org/boat@next")) == seed
    assert seed_of(lm.load("org/boat")) == 0
    assert hub.commits == [("org/boat", "next", "Seed 5"), ("org/boat", "next", "Seed 6")]
    make(7).push_to_hub("org/boat", token=TOKEN, revision="v1")  # which was there before
    assert seed_of(lm.load("org/boat", revision="v1")) == 7


@pytest.mark.slow
def test_a_pull_request_changes_no_branch(hub):
    url = make(5).push_to_hub("org/boat", token=TOKEN, create_pr=True, commit_message="Better")
    assert url == f"{hub.url}/org/boat/discussions/1"
    assert hub.commits == [("org/boat", "refs/pr/1", "Better")]
    assert seed_of(lm.load("org/boat@refs/pr/1")) == 5
    assert seed_of(lm.load("org/boat")) == 0
    make(6).push_to_hub("org/boat", token=TOKEN, revision="refs/pr/1")  # adds to it
    assert seed_of(lm.load("org/boat", revision="refs/pr/1")) == 6


def test_only_a_pull_request_can_change_the_model_of_another_user(hub):
    shutil.copytree(hub.root / "models/org/boat", hub.root / "models/other/boat")
    with pytest.raises(UserError, match=r"cannot upload to the Hub model 'other/boat': the token does not"):
        make(5).push_to_hub("other/boat", token=TOKEN)
    make(5).push_to_hub("other/boat", token=TOKEN, create_pr=True)
    assert seed_of(lm.load("other/boat", revision="refs/pr/1")) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "cannot create the Hub model 'org/new': the Hub does not accept the token, or there is none;"),
        ({"token": "hf_wrong"}, "cannot create the Hub model 'org/new': the Hub does not accept the token"),
        ({"token": True}, "there is no token on this machine; run `hf auth login` or pass `token`"),
        (
            {"token": TOKEN, "revision": "nowhere", "create_pr": True},
            "a pull request is for the main branch: leave out `revision` or `create_pr`",
        ),
        ({"token": TOKEN, "revision": "refs/pr/9"}, "has no revision 'refs/pr/9'; name a branch"),
    ],
)
def test_an_upload_that_fails_is_a_one_line_error(hub, options, message):
    with pytest.raises(UserError, match=message) as error:
        make().push_to_hub("org/new", **options)
    assert "\n" not in str(error.value)


def test_an_upload_without_a_network_is_a_one_line_error(hub):
    hub.stop()
    with pytest.raises(UserError, match="cannot create the Hub model 'org/new': ") as error:
        make().push_to_hub("org/new", token=TOKEN)
    assert "\n" not in str(error.value)


def test_an_ensemble_creates_no_model_on_the_hub(hub):
    ensemble = make(0).mixed_with([(make(1), 0.5)])
    with pytest.raises(UserError, match="an ensemble can only generate"):
        ensemble.push_to_hub("org/new", token=TOKEN)
    assert not (hub.root / "models/org/new").exists()


def test_a_backward_model_with_remote_code_creates_no_model_on_the_hub(hub):
    tokenizer = train_tokenizer("char", iter(["the sea was calm\n"]))
    config = ModelConfig(hidden_size=4, layers=1, direction="backward")
    model = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)
    with pytest.raises(UserError, match="right to left: leave out `remote_code`"):
        model.push_to_hub("org/new", token=TOKEN, remote_code=True)
    assert not (hub.root / "models/org/new").exists()


def test_training_can_start_from_a_revision(hub, tmp_path):
    from lm.training.finetune import with_model_settings

    values = with_model_settings({"init_from": "org/boat@v1"})
    config = json.loads((hub.root / "models/org/boat@v1/config.json").read_text())
    assert values["hidden_size"] == config["model"]["hidden_size"] == 4
    assert "snapshots" in values["tokenizer"]
