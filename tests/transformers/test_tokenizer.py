"""The tokenizers of lm in transformers: the same tokens, and texts that begin as the model expects."""

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors

import lm
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import KINDS
from tests.transformers.models import TEXTS, logprobs, make, saved, scores


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
