"""lm.transformers generates the texts of lm: greedily, by beam search, by sampling, and in a pipeline."""

import pytest
import torch

from tests.transformers.models import TEXTS, make, saved


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


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_on_either_side_changes_no_text(ours, theirs, side):
    model, tokenizer = theirs
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
    found = model.generate(**batch, do_sample=False, max_new_tokens=9)[:, batch.input_ids.shape[1] :].tolist()
    for row, text in zip(found, TEXTS, strict=True):
        expected = ours.generate(text, greedy=True, max_new_tokens=9)[0].tokens
        assert row[: len(expected)] == expected


def test_a_prompt_without_a_mask_is_read_with_its_line_ends(tmp_path):
    model, text = make("word"), "was\n\nnaïve\n"  # the end of a line is also the token that pads
    theirs, tokenizer = saved(model, tmp_path)
    ids = tokenizer(text, return_tensors="pt").input_ids
    found = theirs.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1] :].tolist()
    assert found == model.generate(text, greedy=True, max_new_tokens=20)[0].tokens


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


def test_hidden_states_are_not_silently_missing(theirs):
    with pytest.raises(ValueError, match="the hidden states are not among the outputs"):
        theirs[0](torch.tensor([[1, 2]]), output_hidden_states=True)


def test_stop_strings_end_a_text_or_say_what_they_need(ours, theirs, tmp_path):
    model, tokenizer = theirs
    options = {"do_sample": False, "max_new_tokens": 30}
    batch = tokenizer("The sea", return_tensors="pt")
    whole = tokenizer.decode(model.generate(**batch, **options)[0][batch.input_ids.shape[1] :])
    stopped = model.generate(**batch, **options, stop_strings=[whole[8]], tokenizer=tokenizer)[0]
    assert tokenizer.decode(stopped[batch.input_ids.shape[1] :]) == whole[: whole.index(whole[8]) + 1]
    model, tokenizer = saved(make("word"), tmp_path)
    with pytest.raises(ValueError, match="knows the letters a to f"):
        batch = tokenizer("The", return_tensors="pt")
        model.generate(**batch, **options, stop_strings=["sea"], tokenizer=tokenizer)


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
