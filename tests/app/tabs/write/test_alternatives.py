"""The alternatives popover: its values say what the model would write after each token."""

import pytest
import torch

from app.draft import Draft
from app.tabs.write.alternatives import alternatives_values
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text


@pytest.fixture(scope="module")
def draft():
    torch.manual_seed(1)
    tokenizer = train_tokenizer("char", iter([some_text(3000) + "\t\n"]), 300)
    network = RecurrentLM(ModelConfig(hidden_size=16, embedding_size=16), tokenizer.vocab_size)
    model = LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})
    return Draft(model).with_text("The sea\nwas calm")


def test_the_first_value_has_the_tokens_and_the_second_also_where_they_lead(draft):
    first, second = alternatives_values(draft, 4)
    assert [option["ahead"] for option in first["options"]] == [None] * 10
    assert [option["name"] for option in first["options"]] == [option["name"] for option in second["options"]]
    for option in second["options"]:
        ahead = "".join(
            piece.text
            for piece in draft.with_token(4, option["token"]).session.sample(greedy=True, max_new_tokens=15)
        )
        assert option["ahead"] == ahead.replace("\n", "↵").replace("\t", "⇥")
    assert first["title"] == "Instead of “s”, the model considered:" and first["reroll"]
    assert (first["start"], first["end"]) == (4, 5)


def test_at_the_end_tokens_are_appended_and_nothing_is_rolled_again(draft):
    value, _ = alternatives_values(draft, 99)
    assert value["title"] == "Most likely to come next:" and value["reroll"] is None
    assert (value["start"], value["end"]) == (16, 16)
    assert not any(option["isCurrent"] for option in value["options"])


def test_white_space_is_visible_and_has_a_name(draft):
    value, _ = alternatives_values(draft, 7)
    assert value["title"].startswith("Instead of “↵”")
    names = {option["name"]: option["spoken"] for option in value["options"]}
    assert {"␣": "space", "↵": "line break", "⇥": "tab"}.items() & names.items()
    for name, spoken in names.items():
        assert spoken == {"␣": "space", "↵": "line break", "⇥": "tab"}.get(name, name)
