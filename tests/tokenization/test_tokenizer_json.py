"""A tokenizer.json is checked before `tokenizers` reads it; what real tokenizers contain passes."""

import base64
import json

import pytest
from tokenizers import Regex, Tokenizer as Backend, decoders, models, normalizers, pre_tokenizers, processors

from lm.errors import DataError, ModelError
from lm.tokenization.backend import read_backend
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.tokenizer_json import read_spec
from lm.tokenization.vocabulary import load_external

# How the tokenizer of GPT-4 splits a text.
GPT_4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
TOKENS = {token: number for number, token in enumerate(["<eos>", "<unk>", *"abcdef ▁", "ab", "##b", "a##b"])}


def gpt_4():
    backend = Backend(models.BPE(TOKENS, [("a", "b")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(GPT_4), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    backend.decoder, backend.post_processor = decoders.ByteLevel(), processors.ByteLevel()
    return backend


def llama():
    backend = Backend(models.BPE(TOKENS, [("a", "b")], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<eos> $A", pair="<eos> $A <eos> $B", special_tokens=[("<eos>", 0)]
    )
    return backend


def bert():
    backend = Backend(models.WordPiece(TOKENS, unk_token="<unk>", max_input_chars_per_word=100))
    backend.normalizer, backend.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    backend.decoder = decoders.WordPiece()
    backend.enable_padding(length=512)
    backend.enable_truncation(512)
    return backend


def clip():
    backend = Backend(models.BPE(TOKENS, [("a", "b")], unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " ")])
    return backend


def with_prefix():
    merges = [("a", "##b")]
    tokens = {**TOKENS, "ab": 10}
    return Backend(models.BPE(tokens, merges, unk_token="<unk>", continuing_subword_prefix="##"))


@pytest.mark.parametrize("make", [gpt_4, llama, bert, clip, with_prefix])
def test_real_kinds_of_tokenizers_are_read_unchanged(tmp_path, make):
    backend = make()
    backend.save(str(tmp_path / "tokenizer.json"))
    read = read_backend(tmp_path / "tokenizer.json", tmp_path)
    backend.no_padding()
    backend.no_truncation()
    assert json.loads(read.to_str()) == json.loads(backend.to_str())
    assert Tokenizer(read).encode("ab").tolist() == backend.encode("ab", add_special_tokens=False).ids


@pytest.mark.posix
def test_a_link_that_the_user_names_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    clip().save(str(tmp_path / "elsewhere" / "tokenizer.json"))
    link = tmp_path / "model" / "link.json"
    link.parent.mkdir()
    link.symlink_to("../elsewhere/tokenizer.json")
    assert load_external(link)[0].vocab_size == len(TOKENS)
    with pytest.raises(ModelError, match=r"link\.json is a link that leaves its folder"):
        Tokenizer.load(link)


def test_a_charsmap_is_accepted_if_its_sizes_are_right(tmp_path):
    spec = json.loads(clip().to_str())
    for charsmap, fits in ((b"\x04\0\0\0\0\0\0\0", True), (b"\x08\0\0\0\0\0\0\0", False), (b"\x04\0", False)):
        encoded = base64.b64encode(charsmap).decode()
        spec["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": encoded}
        (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
        if fits:
            read_spec(tmp_path / "tokenizer.json", tmp_path)
        else:
            with pytest.raises(ValueError, match="its precompiled_charsmap is damaged"):
                read_spec(tmp_path / "tokenizer.json", tmp_path)


def test_an_id_below_which_billions_are_missing_is_rejected_unread(tmp_path):
    for largest, fits in ((1 << 24, True), ((1 << 24) + 1, False), ((1 << 32) - 2, False)):
        model = {"type": "WordLevel", "unk_token": "<eos>", "vocab": {"<eos>": 0, "a": largest}}
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
        if fits:
            read_spec(tmp_path / "tokenizer.json", tmp_path)
        else:
            with pytest.raises(ValueError, match=r"has an id of [0-9,]+; ids count tokens from 0"):
                read_spec(tmp_path / "tokenizer.json", tmp_path)


def test_a_pattern_that_fails_on_a_text_is_one_line_about_that_text(tmp_path):
    backend = clip()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert len(tokenizer.encode("b"))
    with pytest.raises(
        DataError, match=r"fails on this text \(Onig: .*retry-limit.*\): choose another model\."
    ):
        tokenizer.encode("a" * 40 + "b")
    assert len(tokenizer.encode("b"))


def test_a_decoder_that_fails_is_one_line(tmp_path):
    backend = clip()
    backend.decoder = decoders.Strip("a", 0, 2)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="cannot decode its tokens: index out of bounds"):
        tokenizer.decode([TOKENS["a"]])
    with pytest.raises(ModelError, match="cannot decode its tokens: index out of bounds"):
        tokenizer.decode_stream().step(TOKENS["a"])
