"""lm-eval, with the API and with transformers: the numbers of `model.score`, the texts of `generate`."""

import itertools
import json
import math
import os
import subprocess
import sys

import pytest
import torch

import lm
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import called, some_text
from tests.end_to_end.conftest import free_port, serving, until_ready

pytestmark = pytest.mark.lm_eval

KINDS = ("char", "byte", "bpe", "unigram", "word")
TEXT = some_text(3000) + "naïve 中文 \U0001f642 " * 9
ROLLING = [
    "The sea was calm.",
    "naïve 中文 🙂 and <eos> zzz Ω",  # with unknown characters, and a name that is no token
    "\nA small boat\n\nwent out\n",
    some_text(6000),  # many more tokens than lm-eval sends by default
]
PAIRS = [
    ("The sea", " was calm"),
    ("The sea ", "was calm"),  # lm-eval moves the space to the continuation
    ("naïve 中", "文 🙂"),
    ("", "A small boat"),
    ("The sea was calm.\n", "A boat"),
    ("\nThe sea", " was <eos>"),
]
TASKS = {
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "pairs": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{target}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    },
    "texts": {
        "output_type": "generate_until",
        "doc_to_text": "{{context}}",
        "doc_to_target": "x",
        "generation_kwargs": {"until": ["sea", "\n"], "max_gen_toks": 40},
        "metric_list": [{"metric": "exact_match"}],
    },
    "blimp": {  # as in lm-eval's own tasks of BLiMP
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of each kind, and one of a single document, whose texts start after a line break."""
    folder = tmp_path_factory.mktemp("models")
    for name in (*KINDS, "single"):
        kind = "char" if name == "single" else name
        torch.manual_seed(1)
        tokenizer = train_tokenizer(kind, iter([TEXT]), 300)
        config = ModelConfig(cell="gru", layers=1, hidden_size=24, embedding_size=16)
        documents = {
            "trained_on": {"dataset": "x", "characters": 1, "documents": 1 if name == "single" else 9}
        }
        model = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, documents)
        model.save(folder / name, remote_code=True)
    return folder


@pytest.fixture(scope="module")
def server(models):
    with serving(models, "--api", "--port", free_port(), "--models", models) as server:
        yield until_ready(server)


def run_lm_eval(folder, pairs, *options):
    """The answers of each task, in the order of its documents."""
    data = {
        "rolling": [{"text": text} for text in ROLLING],
        "pairs": [{"context": context, "target": target} for context, target in pairs],
        "texts": [{"context": context} for context, _ in pairs],
    }
    samples = run_tasks(folder, data, *options)
    return {task: [sample["resps"][0][0] for sample in each] for task, each in samples.items()}


def run_tasks(folder, data, *options):
    """What lm-eval says about the rows of each task, in their order."""
    for task, rows in data.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {"test": str(folder / f"{task}.jsonl")}
        settings = {
            "task": task,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            **TASKS[task],
        }
        (folder / f"{task}.yaml").write_text(json.dumps(settings))  # JSON is YAML
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder)}
    command = [sys.executable, "-m", "lm_eval", *options, "--include_path", folder]
    command += ["--tasks", ",".join(data), "--log_samples", "--output_path", folder]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    samples = {}
    for task in data:
        (file,) = folder.rglob(f"samples_{task}_*.jsonl")
        lines = map(json.loads, file.read_text().splitlines())
        samples[task] = sorted(lines, key=lambda sample: sample["doc_id"])
        assert len(samples[task]) == len(data[task])
    return samples


def minimal_pairs():
    """Lines of minimal pairs: other orders and forms of words, with unknown characters, and ties."""
    words = ["sea", "boat", "calm", "small", "naïve", "中文"]
    for first, second in itertools.permutations(words, 2):
        good, uid = f"The {first} was {second}.", "order"
        for bad in (f"The {second} was {first}.", f"{first} the {second} was.", f"The {first} were {second}"):
            yield json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": uid})
            uid = "form"
    for word in words:
        yield json.dumps({"sentence_good": f"A {word}", "sentence_bad": f"A {word}", "UID": "tie"})


def pairs_for(model):
    """PAIRS, and one whose end is what the model itself would write, if that has the same tokens."""
    likely = model.generate("The", greedy=True, max_new_tokens=4)[0].text
    same = model.encode("The" + likely)[:1] == model.encode("The")
    return [*PAIRS, ("The", likely)] if same else PAIRS


def score_of_pair(model, context, whole):
    """The log-probability of the end of a text, and whether all of its tokens are the most likely ones."""
    before, tokens = model.encode(context), model.encode(whole)
    text = whole
    if tokens[: len(before)] != before:  # lm-eval reads the tokens of the context alone
        text = [*before, *tokens[len(before) :]]
    elif model.tokenizer.kind == "word":  # ids that start with an empty line: see docs/api.md
        text = whole.removeprefix("\n")
        before = before[len(whole) - len(text) :]
    scores = model.score(text)[len(before) :]
    return sum(score.logprob for score in scores), all(score.rank == 1 for score in scores)


@pytest.mark.parametrize(
    ("name", "flag", "number"),
    [
        *((name, "batch_size", 1) for name in (*KINDS, "single")),
        ("bpe", "num_concurrent", 8),
        ("char", "batch_size", 4),
    ],
)
def test_lm_eval_returns_the_numbers_of_score_and_the_texts_of_generate(
    models, server, tmp_path, name, flag, number
):
    model = lm.load(models / name, device="cpu")
    pairs = pairs_for(model)
    arguments = (
        f"model={name},base_url={server.address}/completions,tokenizer={models / name},max_length=40000"
    )
    options = ["--batch_size", number]
    if flag == "num_concurrent":
        arguments, options = f"{arguments},num_concurrent={number}", []
    options = ["--model", "local-completions", "--model_args", arguments, *options]
    found = run_lm_eval(tmp_path, pairs, *options)
    assert [float(answer) for answer in found["rolling"]] == [
        sum(score.logprob for score in model.score(text)) for text in ROLLING
    ]
    expected = [score_of_pair(model, context.rstrip(), context + target) for context, target in pairs]
    answers = [(float(logprob), greedy in (True, "True")) for logprob, greedy in found["pairs"]]
    assert answers == expected
    assert answers[-1][1] or pairs == PAIRS  # what the model itself would write
    stops = {"stop": ["sea", "\n", "<eos>"], "max_new_tokens": 40, "greedy": True}
    # Ids of words lack the space at the end of a text.
    prompts = [[model.encode(context)] if name == "word" else context for context, _ in pairs]
    assert found["texts"] == [model.generate(prompt, **stops)[0].text for prompt in prompts]


@pytest.mark.parametrize("name", ["char", "byte", "bpe", "unigram", "single"])
def test_lm_eval_with_transformers_returns_the_numbers_of_score_and_the_texts_of_generate(
    models, tmp_path, name
):
    model = lm.load(models / name, device="cpu")
    pairs = pairs_for(model)
    arguments = f"pretrained={models / name},trust_remote_code=True,max_length=40000"
    found = run_lm_eval(
        tmp_path, pairs, "--model", "hf", "--device", "cpu", "--batch_size", 4, "--model_args", arguments
    )
    totals = [sum(score.logprob for score in model.score(text)) for text in ROLLING]
    assert [float(answer) for answer in found["rolling"]] == pytest.approx(totals, rel=1e-5)
    for (logprob, greedy), (context, target) in zip(found["pairs"], pairs, strict=True):
        expected, most_likely = score_of_pair(model, context.rstrip(), context + target)
        assert float(logprob) == pytest.approx(expected, abs=1e-4)
        assert (greedy in (True, "True")) == most_likely
    stops = {"stop": ["sea", "\n", "<eos>"], "max_new_tokens": 40, "greedy": True}
    # Programs differ in how many replacement characters they write for bytes that are no text.
    expected = [model.generate(context, **stops)[0].text for context, _ in pairs]
    assert [text.replace("\ufffd", "") for text in found["texts"]] == [
        text.replace("\ufffd", "") for text in expected
    ]


@pytest.mark.parametrize(
    ("name", "through"),
    [
        *((name, "transformers") for name in ("char", "byte", "bpe", "unigram", "single")),
        *((name, "api") for name in ("char", "word")),
    ],
)
def test_minimal_pairs_are_scored_as_in_the_blimp_of_lm_eval(models, request, tmp_path, name, through):
    rows = [json.loads(line) for line in minimal_pairs()]
    if through == "api":
        address = request.getfixturevalue("server").address
        arguments = f"model={name},base_url={address}/completions,tokenizer={models / name},max_length=40000"
        options = ["--model", "local-completions", "--model_args", arguments, "--batch_size", 8]
    else:
        arguments = f"pretrained={models / name},trust_remote_code=True,max_length=40000"
        options = ["--model", "hf", "--device", "cpu", "--batch_size", 4, "--model_args", arguments]
    samples = run_tasks(tmp_path, {"blimp": rows}, *options)["blimp"]
    pairs = ("--pairs", tmp_path / "blimp.jsonl", "--per-pair", tmp_path / "pairs.jsonl", "--format", "jsonl")
    result = called("evaluate", models / name, *pairs, "--json")
    assert result.returncode == 0, result.stderr
    ours = json.loads(result.stdout)
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
    for sample, line in zip(samples, map(json.loads, lines), strict=True):
        found = [float(answer[0][0]) for answer in sample["resps"]]
        bits = [line["surprisal_good"], line["surprisal_bad"]]
        assert [-logprob / math.log(2) for logprob in found] == pytest.approx(bits, abs=1e-4)
        assert sample["acc"] == line["correct"] or line["tie"]
    total = sum(sample["acc"] for sample in samples)
    assert ours["accuracy"]["value"] == total / len(rows)
    for uid, each in ours["phenomena"].items():
        of_uid = [sample["acc"] for sample in samples if sample["doc"]["UID"] == uid]
        assert each["accuracy"]["value"] == sum(of_uid) / len(of_uid)
    assert 0 < total < len(rows) and ours["ties"] >= 5


@pytest.mark.parametrize("name", [*KINDS, "single"])
def test_transformers_reads_the_tokenizer(models, name):
    from transformers import AutoTokenizer

    ours, theirs = (
        lm.load(models / name, device="cpu").tokenizer,
        AutoTokenizer.from_pretrained(models / name),
    )
    assert (theirs.eos_token, theirs.eos_token_id) == ("<eos>", ours.eos)
    for text in [*ROLLING, *(context + target for context, target in PAIRS)]:
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text).tolist()
