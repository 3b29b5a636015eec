"""lm.transformers: the models of lm in Hugging Face transformers, with the numbers of lm.

Functions import transformers, which takes seconds: each worker of xdist reads this file, only one runs it.
"""

import ast
import json
import os
import subprocess
import sys

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, processors

import lm
from lm.config.schema import CELLS, ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.model_folder import PRETRAINED
from lm.remote_code import REMOTE_CODE, remote_code
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import KINDS, train_tokenizer
from tests.conftest import some_text
from tests.hub.server import HubServer

TEXT = some_text(3000) + "naïve 中文 \U0001f642 " * 9
TEXTS = ["The sea was calm.", "A", "\nwas <eos> naïve\n\n", "<unk> zzz Ω , a boat ."]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    import transformers

    import lm.transformers  # noqa: F401 - registers the models

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def make(kind="char", documents=9, scale=0.3, **settings):
    """A model with weights large enough that its predictions differ from each other."""
    torch.manual_seed(0)
    tokenizer = kind if isinstance(kind, Tokenizer) else train_tokenizer(kind, iter([TEXT]), 300)
    config = ModelConfig(**{"layers": 2, "hidden_size": 16, "embedding_size": 12, **settings})
    network = RecurrentLM(config, tokenizer.vocab_size).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight += scale * torch.randn_like(weight)
    facts = {"trained_on": {"dataset": "x", "characters": 1, "documents": documents}}
    return LanguageModel(network, tokenizer, facts)


def loaded(folder, **options):
    """The model and the tokenizer of a folder, as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=True)


def saved(model, folder, **options):
    model.save(folder, **options)
    return loaded(folder)


@torch.no_grad()
def logprobs(model, tokens):
    """The log-probability of each of `tokens` but the first."""
    ids = torch.tensor([tokens])
    found = model(ids).logits[0, :-1].log_softmax(dim=-1)
    return found.gather(1, ids[0, 1:, None])[:, 0]


def scores(model, text):
    return torch.tensor([score.logprob for score in model.score(text)])


@pytest.fixture(scope="module")
def ours():
    return make()


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    return saved(ours, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tie": True},
        {"tie": True, "embedding_size": 16, "residual": False, "layers": 3},
        {"cell_implementation": "reference", "layers": 1},
    ],
)
def test_logits_are_those_of_lm_bit_for_bit(tmp_path, cell, settings):
    model = make(cell=cell, **settings)
    theirs, _ = saved(model, tmp_path)
    assert theirs.config.num_hidden_layers == model.network.config.layers
    assert (theirs.decoder.weight is theirs.embedding.weight) == model.network.config.tie
    tokens = torch.randint(2, model.tokenizer.vocab_size, (3, 40))
    with torch.no_grad():
        expected, state = model.network(tokens)
        first = theirs(tokens[:, :25])
        second = theirs(tokens[:, 25:], past_key_values=first.past_key_values)
        assert torch.equal(theirs(tokens).logits, expected)
        assert torch.equal(theirs(tokens, logits_to_keep=2).logits, expected[:, -2:])
    assert torch.equal(torch.cat([first.logits, second.logits], dim=1), expected)
    assert all(map(torch.equal, second.past_key_values.parts, state))


def test_large_layers_are_those_of_lm_bit_for_bit(tmp_path):
    model = make(layers=1, hidden_size=520)
    theirs, _ = saved(model, tmp_path, half=True)
    tokens = torch.randint(2, model.tokenizer.vocab_size, (2, 9))
    with torch.no_grad():
        expected = lm.load(tmp_path, device="cpu").network(tokens)[0]
        assert torch.equal(theirs(tokens).logits, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [1, 9])
def test_the_tokenizer_begins_texts_so_that_the_scores_are_those_of_lm(tmp_path, kind, documents):
    model = make(kind, documents)
    theirs, tokenizer = saved(model, tmp_path)
    assert theirs.config.start_token_id == model.start_token
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == model.tokenizer.eos
    assert tokenizer.unk_token_id == model.tokenizer.unk
    for text in TEXTS:
        tokens = tokenizer(text).input_ids
        assert tokens == [tokenizer.bos_token_id, *model.encode(text)]
        assert tokenizer(text, add_special_tokens=False).input_ids == model.encode(text)
        assert tokenizer(text, text).input_ids == [*tokens, *model.encode(text)]
        torch.testing.assert_close(logprobs(theirs, tokens), scores(model, text), rtol=0, atol=2e-5)
        if kind != "word":  # where <eos> is the end of a line
            decoded = tokenizer.decode([*tokens, tokenizer.eos_token_id], skip_special_tokens=True)
            known = [token for token in tokens[1:] if token != model.tokenizer.unk]
            assert decoded == model.tokenizer.decode(known)


@pytest.mark.parametrize("documents", [1, 9])
def test_a_second_bos_is_given_and_changes_nothing(tmp_path, documents):
    model = make(documents=documents)
    theirs, tokenizer = saved(model, tmp_path)
    tokens = [tokenizer.bos_token_id, *tokenizer("The sea").input_ids]
    expected = torch.cat([torch.zeros(1), scores(model, "The sea")])
    torch.testing.assert_close(logprobs(theirs, tokens), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_not_read(tmp_path, cell, side):
    model = make(cell=cell)
    theirs, tokenizer = saved(model, tmp_path)
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
    with torch.no_grad():
        found = theirs(**batch)
        for row, text in enumerate(TEXTS):
            alone = theirs(**tokenizer(text, return_tensors="pt"))
            real = batch.attention_mask[row].bool()
            torch.testing.assert_close(found.logits[row, real], alone.logits[0], rtol=0, atol=2e-5)
            state = (part[:, row] for part in found.past_key_values.parts)
            for part, expected in zip(state, alone.past_key_values.parts, strict=True):
                torch.testing.assert_close(part, expected[:, 0], rtol=0, atol=2e-5)


def test_padding_within_a_text_is_not_read(theirs):
    model, _ = theirs
    tokens = torch.randint(2, 20, (2, 12))
    mask = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1]])
    with torch.no_grad():
        found = model(tokens, mask).logits
        for row in range(2):
            real = mask[row].bool()
            alone = model(tokens[row : row + 1, real]).logits[0]
            torch.testing.assert_close(found[row, real], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("documents", [1, 9])
@pytest.mark.parametrize("kind", ["char", "word"])
def test_greedy_texts_of_a_padded_batch_are_those_of_lm(tmp_path, kind, documents):
    model = make(kind, documents)
    theirs, tokenizer = saved(model, tmp_path)
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    found = theirs.generate(**batch, do_sample=False, max_new_tokens=30)[:, batch.input_ids.shape[1] :]
    for row, text in zip(found.tolist(), TEXTS, strict=True):
        expected = model.generate(text, greedy=True, max_new_tokens=30)[0].tokens
        assert row[: len(expected)] == expected
        if len(expected) < 30:  # the text has ended
            assert set(row[len(expected) :]) == {tokenizer.eos_token_id}


def test_beam_search_finds_the_texts_of_lm(ours, theirs):
    model, tokenizer = theirs
    batch = tokenizer(TEXTS[:2], return_tensors="pt", padding=True)
    options = {"num_beams": 4, "max_new_tokens": 8, "length_penalty": 0.0, "early_stopping": "never"}
    found = model.generate(
        **batch, **options, num_return_sequences=3, output_scores=True, return_dict_in_generate=True
    )
    texts = found.sequences[:, batch.input_ids.shape[1] :].tolist()
    expected = [
        completion
        for text in TEXTS[:2]
        for completion in ours.generate(text, beams=4, num_samples=3, max_new_tokens=8, length_penalty=0.0)
    ]
    ended = [text[: text.index(1)] if 1 in text else text for text in texts]
    assert ended == [[token for token in one.tokens if token != 1] for one in expected]
    totals = [sum(one.logprobs) for one in expected]
    assert found.sequences_scores.tolist() == pytest.approx(totals, abs=1e-4)


def test_samples_follow_the_distribution_of_the_model(theirs):
    model, tokenizer = theirs
    batch = tokenizer("The", return_tensors="pt")
    torch.manual_seed(1)
    found = model.generate(**batch, do_sample=True, num_return_sequences=3000, max_new_tokens=1)[:, -1]
    with torch.no_grad():
        logits = model(**batch).logits[0, -1]
    logits[0] = -torch.inf  # <unk> is never generated
    frequencies = torch.bincount(found, minlength=len(logits)) / len(found)
    assert (frequencies - logits.softmax(dim=0)).abs().max() < 0.04


def test_generation_continues_from_a_state(theirs):
    from lm.transformers.modeling import CACHE, RecurrentState

    model, tokenizer = theirs
    batch = tokenizer("The sea was", return_tensors="pt")
    whole = model.generate(**batch, do_sample=False, max_new_tokens=20, return_dict_in_generate=True)
    with torch.no_grad():
        state = model(batch.input_ids[:, :5]).past_key_values
    assert isinstance(state, RecurrentState)
    again = model.generate(**batch, do_sample=False, max_new_tokens=20, **{CACHE: state})
    assert torch.equal(again, whole.sequences)
    uncached = model.generate(**batch, do_sample=False, max_new_tokens=20, use_cache=False)
    assert torch.equal(uncached, whole.sequences)


def test_generation_computes_only_the_logits_that_it_needs(theirs, monkeypatch):
    model, tokenizer = theirs
    decode, counts = model.decode, []
    monkeypatch.setattr(model, "decode", lambda hidden: (counts.append(len(hidden)), decode(hidden))[1])
    model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), do_sample=False, max_new_tokens=5)
    assert counts == [1] * 5


def test_assisted_generation_is_rejected(theirs):
    model, tokenizer = theirs
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(**tokenizer("The", return_tensors="pt"), assistant_model=model)


def test_a_result_has_what_the_caller_wants(theirs):
    model, _ = theirs
    tokens = torch.randint(2, 20, (2, 7))
    with torch.no_grad():
        result = model(tokens)
        assert model(tokens, use_cache=False).to_tuple()[1:] == ()
        logits, state = model(tokens, return_dict=False)
    assert torch.equal(logits, result.logits)
    assert state.get_seq_length() == 7
    with torch.no_grad():
        state = model(tokens[:, :2], past_key_values=state).past_key_values
    assert state.get_seq_length() == 9


@pytest.mark.parametrize("shape", [(2, 6), (2, 1, 7, 7)])
def test_a_mask_of_another_shape_is_an_error(theirs, shape):
    with pytest.raises(ValueError, match=r"attention_mask must be \(batch, time\) for 7 tokens, got \[2, "):
        theirs[0](torch.zeros(2, 7, dtype=torch.long), torch.ones(shape))


def test_generation_without_a_prompt_begins_a_text(ours, theirs):
    model, tokenizer = theirs
    found = model.generate(do_sample=False, max_new_tokens=9)[0].tolist()
    expected = ours.generate("", greedy=True, max_new_tokens=9)[0].tokens
    assert found[: len(expected) + 1] == [tokenizer.bos_token_id, *expected]


def test_the_pipeline_writes_the_texts_of_lm(ours, theirs):
    from transformers import pipeline

    model, tokenizer = theirs
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    options = {"do_sample": False, "max_new_tokens": 12, "return_full_text": False, "batch_size": 2}
    found = [text[0]["generated_text"] for text in write(["The sea was calm.", "A boat"], **options)]
    prompts = ["The sea was calm.", "A boat"]
    assert found == [text.text for text in ours.generate(prompts, greedy=True, max_new_tokens=12)]


def test_the_loss_of_labels_is_the_mean_of_the_scores(ours, theirs):
    model, tokenizer = theirs
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="right")
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    with torch.no_grad():
        loss = model(**batch, labels=labels).loss
        sum_of_some = model(**batch, labels=labels, num_items_in_batch=2).loss * 2
    expected = torch.cat([scores(ours, text) for text in TEXTS])
    assert loss.item() == pytest.approx(-expected.mean().item(), abs=1e-5)
    assert sum_of_some.item() == pytest.approx(-expected.sum().item(), rel=1e-5)


def test_gradients_are_those_of_lm_with_the_same_dropout(tmp_path):
    kinds = ("embedding_dropout", "input_dropout", "dropout", "weight_dropout", "output_dropout")
    model = make(cell="gru", **dict.fromkeys(kinds, 0.2))
    theirs, _ = saved(model, tmp_path)
    tokens = torch.randint(2, 20, (2, 9))
    for network in (theirs, model.network):
        torch.manual_seed(3)
        logits = network.train()(tokens)[0] if network is model.network else network.train()(tokens).logits
        logits.square().sum().backward()
    found = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in model.network.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, msg=name)


@pytest.mark.parametrize("settings", [{}, {"tie": True}, {"tie": True, "embedding_size": 16}])
def test_a_folder_saved_by_transformers_loads_in_both(tmp_path, settings):
    model = make(**settings)
    theirs, tokenizer = saved(model, tmp_path / "ours")
    with torch.no_grad():
        for weight in theirs.parameters():
            weight += 0.01  # as after more training
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    again, tokenizer = loaded(tmp_path / "theirs")
    back = lm.load(tmp_path / "theirs", device="cpu")
    assert back.tokenizer.kind == "char"
    tokens = torch.randint(2, model.tokenizer.vocab_size, (2, 20))
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert torch.equal(again(tokens).logits, expected)
        assert torch.equal(back.network(tokens)[0], expected)
    assert tokenizer("The sea").input_ids == [tokenizer.bos_token_id, *back.encode("The sea")]
    batch = tokenizer("The", return_tensors="pt")
    found = again.generate(**batch, do_sample=False, max_new_tokens=20)[0, batch.input_ids.shape[1] :]
    completion = back.generate("The", greedy=True, max_new_tokens=20)[0]
    assert found[: len(completion.tokens)].tolist() == completion.tokens


def test_a_folder_of_an_older_version_loads(tmp_path):
    from lm.transformers import RecurrentLMForCausalLM

    model = make(residual=False)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    ours = ("format_version", "model", "tokenizer", "vocab_size", "parameters", "trained_on", "sha256")
    del config["model"]["residual"], config["model"]["cell_implementation"]
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in ours}))
    (tmp_path / "tokenizer_config.json").unlink()
    theirs = RecurrentLMForCausalLM.from_pretrained(tmp_path)
    tokens = torch.randint(0, model.tokenizer.vocab_size, (2, 20))
    with torch.no_grad():
        assert torch.equal(theirs(tokens).logits, model.network(tokens)[0])


def test_the_keys_of_transformers_decide_nothing_in_lm(tmp_path):
    model = make()
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    keys = set(config) - {"format_version", "model", "tokenizer", "vocab_size", "parameters", "sha256"}
    for value in (None, -1, 1e99, "x", [[]], {"a": {}}):
        hostile = dict.fromkeys(keys - {"trained_on"}, value)
        (tmp_path / "config.json").write_text(json.dumps({**config, **hostile}))
        assert lm.load(tmp_path, device="cpu").score("The sea") == model.score("The sea")


def test_config_json_has_the_keys_that_other_programs_look_for(tmp_path):
    model = make(tie=True)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    eos = model.tokenizer.eos
    expected = {
        "model_type": "recurrent_lm",
        "architectures": ["RecurrentLMForCausalLM"],
        "vocab_size": model.tokenizer.vocab_size,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
        **{"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos},
    }
    assert {name: config.get(name) for name in expected} == expected


def test_a_model_that_reads_right_to_left_is_rejected_in_one_line(tmp_path):
    model = make(direction="backward")
    with pytest.raises(UserError, match="right to left: leave out `remote_code`"):
        model.save(tmp_path, remote_code=True)
    model.save(tmp_path)
    with pytest.raises(ValueError, match="reads right to left") as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)


def test_a_new_model_is_drawn_as_in_lm():
    from lm.transformers import RecurrentLMConfig, RecurrentLMForCausalLM

    config = RecurrentLMConfig({"hidden_size": 64, "embedding_size": 64}, vocab_size=30)
    drawn = RecurrentLMForCausalLM(config)
    expected = RecurrentLM(ModelConfig(hidden_size=64, embedding_size=64), 30)
    for name, weight in drawn.named_parameters():
        for found, other in zip(weight.chunk(4), expected.get_parameter(name).chunk(4), strict=True):
            assert found.std().item() == pytest.approx(other.std().item(), rel=0.3), name
            assert found.mean().item() == pytest.approx(other.mean().item(), abs=0.2), name


@pytest.mark.parametrize("tie", [False, True])
def test_tokens_can_be_added(tmp_path, tie):
    model = make(tie=tie)
    theirs, _ = saved(model, tmp_path)
    size = model.tokenizer.vocab_size
    tokens = torch.randint(2, size, (2, 9))
    with torch.no_grad():
        before = theirs(tokens).logits
        theirs.resize_token_embeddings(size + 3)
        after = theirs(torch.cat([tokens, torch.full((2, 1), size + 2)], dim=1)).logits
    assert torch.allclose(after[:, :-1, :size], before) and after.shape == (2, 10, size + 3)
    assert (theirs.decoder.weight is theirs.embedding.weight) == tie


def external(post_processor):
    """A tokenizer of bytes with a prefix space, as GPT-2's and RoBERTa's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: index for index, name in enumerate(["<s>", "</s>", "<pad>", "<eos>", *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = post_processor
    backend.add_special_tokens(["<s>", "</s>", "<pad>"])
    return Tokenizer(backend)


@pytest.mark.parametrize(
    "post_processor",
    [
        None,
        processors.ByteLevel(trim_offsets=True),
        processors.RobertaProcessing(("</s>", 1), ("<s>", 0)),
        processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]),
        processors.Sequence([processors.ByteLevel(trim_offsets=False)]),
    ],
)
def test_a_tokenizer_of_the_user_begins_texts_as_the_model_does(tmp_path, post_processor):
    model = make(external(post_processor))
    _, tokenizer = saved(model, tmp_path)
    assert tokenizer.pad_token == "<pad>"
    for text in ["The <s> sea<eos>", " a", ""]:
        assert tokenizer(text).input_ids == [tokenizer.bos_token_id, *model.encode(text)]
    back = lm.load(tmp_path, device="cpu").tokenizer.backend
    assert back.to_str() == model.tokenizer.backend.to_str()
    for text in ("The  sea", " a"):
        encodings = [b.encode(text, add_special_tokens=False) for b in (back, model.tokenizer.backend)]
        assert encodings[0].offsets == encodings[1].offsets


def test_the_pretrained_model_is_readable_by_transformers(tmp_path):
    theirs, tokenizer = loaded(PRETRAINED)
    model = lm.load(PRETRAINED, device="cpu")
    model.save(tmp_path)  # in float32, at addresses that torch would not choose
    again, _ = loaded(tmp_path)
    assert {weight.data_ptr() % 64 for weight in again.parameters()} == {0}
    text = "def main(args):\n    return 0\n"
    tokens = tokenizer(text).input_ids
    torch.testing.assert_close(logprobs(theirs, tokens), scores(model, text), rtol=0, atol=2e-5)
    ids = torch.tensor([tokens])
    with torch.no_grad():
        expected = model.network(ids)[0]
        assert torch.equal(theirs(ids).logits, expected) and torch.equal(again(ids).logits, expected)


def test_the_remote_code_needs_only_torch_and_transformers():
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(remote_code()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - sys.stdlib_module_names == {"torch", "transformers"}


# Loads the models of the Hub's user org, and writes the logits of some tokens, and texts.
WITHOUT_LM = """
import json, sys, torch
from safetensors.torch import load_file, save_file
sys.modules["lm"] = None  # importing it fails
from transformers import AutoModelForCausalLM, AutoTokenizer
for name in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained("org/" + name, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained("org/" + name, trust_remote_code=True)
    with torch.no_grad():
        save_file(dict(logits=model(**load_file("tokens")).logits), name + ".logits")
    batch = tokenizer(["The sea", "A"], return_tensors="pt", padding=True)
    found = model.generate(**batch, do_sample=False, max_new_tokens=9)[:, batch.input_ids.shape[1]:]
    with open(name + ".texts", "w") as file:
        json.dump(found.tolist(), file)
    model.save_pretrained(name)
    tokenizer.save_pretrained(name)
"""


def test_remote_code_on_the_hub_computes_the_logits_of_lm_without_lm(tmp_path):
    models = {cell: make(cell=cell, tie=cell == "lstm") for cell in CELLS}
    tokens = torch.randint(2, 20, (2, 20))
    save_file({"input_ids": tokens}, tmp_path / "tokens")
    with HubServer(tmp_path / "hub") as hub:
        for cell, model in models.items():
            model.save(hub.root / "models" / "org" / cell, remote_code=True)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "HF_TOKEN"},
            "HF_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", WITHOUT_LM, *models]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    for cell, model in models.items():
        with torch.no_grad():
            logits = load_file(tmp_path / f"{cell}.logits")["logits"]
            assert torch.equal(logits, model.network(tokens)[0])
        texts = json.loads((tmp_path / f"{cell}.texts").read_text())
        expected = model.generate(["The sea", "A"], greedy=True, max_new_tokens=9)
        for text, completion in zip(texts, expected, strict=True):
            assert text[: len(completion.tokens)] == completion.tokens
        assert (tmp_path / cell / REMOTE_CODE).exists()
        assert lm.load(tmp_path / cell, device="cpu").score("The sea") == model.score("The sea")
