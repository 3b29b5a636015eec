"""The networks of lm in transformers: the same logits, states, losses and gradients."""

import pytest
import torch

import lm
from lm.config.schema import CELL_NAMES, ModelConfig
from lm.model.network import RecurrentLM
from tests.transformers.models import TEXTS, make, saved, scores


@pytest.mark.parametrize("cell", CELL_NAMES)
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


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cell", CELL_NAMES)
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


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "unigram"])
def test_a_text_of_one_token_may_be_padded_with_zeros_and_no_mask(tmp_path, kind):
    """As lm-eval pads: 0 can be bos."""
    theirs, _ = saved(make(kind, documents=1), tmp_path)
    bos = theirs.config.bos_token_id
    with torch.no_grad():
        alone, padded = (theirs(torch.tensor([tokens])).logits[0, 0] for tokens in ([bos], [bos, 0, 0, 0]))
    torch.testing.assert_close(padded, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("documents", [1, 9])  # after one, a text begins with another token than bos
def test_a_padded_batch_can_be_read_in_pieces(tmp_path, documents):
    theirs, tokenizer = saved(make(documents=documents), tmp_path)
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side="left")
    tokens, mask = batch.input_ids, batch.attention_mask
    with torch.no_grad():
        whole, state, logits = theirs(tokens, mask), None, []
        for begin in range(0, tokens.shape[1], 5):
            end = min(begin + 5, tokens.shape[1])
            piece = theirs(tokens[:, begin:end], mask[:, :end], past_key_values=state)
            state = piece.past_key_values
            logits.append(piece.logits)
    real = mask.bool()
    torch.testing.assert_close(torch.cat(logits, dim=1)[real], whole.logits[real], rtol=0, atol=2e-5)
    for part, expected in zip(state.parts, whole.past_key_values.parts, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=2e-5)


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


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_loss_of_labels_is_the_mean_of_the_scores(ours, theirs, side):
    model, tokenizer = theirs
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    with torch.no_grad():
        loss = model(**batch, labels=labels).loss
        sum_of_some = model(**batch, labels=labels, num_items_in_batch=2).loss * 2
    expected = torch.cat([scores(ours, text) for text in TEXTS])
    assert loss.item() == pytest.approx(-expected.mean().item(), abs=1e-5)
    assert sum_of_some.item() == pytest.approx(-expected.sum().item(), rel=1e-5)


def test_a_second_bos_is_not_part_of_the_loss(theirs):
    model, tokenizer = theirs
    tokens = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    twice = torch.cat([tokens[:, :1], tokens], dim=1)
    with torch.no_grad():
        assert model(twice, labels=twice).loss.item() == pytest.approx(
            model(tokens, labels=tokens).loss.item()
        )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_hooks_into_the_embedding_takes_effect(tmp_path, dropout):
    """As adapters and noise on the embedding do (LoRA, NEFTune)."""
    model, _ = saved(make(embedding_dropout=dropout), tmp_path)
    tokens = torch.randint(2, 20, (2, 9))
    results = []
    for factor in (1.0, 2.0):
        hook = model.embedding.register_forward_hook(lambda module, args, out, factor=factor: factor * out)
        torch.manual_seed(0)
        with torch.no_grad():
            results.append(model.train()(tokens).logits)
        hook.remove()
        model.embedding.weight.data /= 2  # so that the second pass computes with the same vectors
    assert torch.equal(*results)


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


def test_a_new_model_is_drawn_as_in_lm():
    from lm.transformers import RecurrentLMConfig, RecurrentLMForCausalLM

    config = RecurrentLMConfig({"hidden_size": 64, "embedding_size": 64}, vocab_size=30)
    drawn = RecurrentLMForCausalLM(config)
    expected = RecurrentLM(ModelConfig(hidden_size=64, embedding_size=64), 30)
    for name, weight in drawn.named_parameters():
        for found, other in zip(weight.chunk(4), expected.get_parameter(name).chunk(4), strict=True):
            assert found.std().item() == pytest.approx(other.std().item(), rel=0.3), name
            assert found.mean().item() == pytest.approx(other.mean().item(), abs=0.2), name
