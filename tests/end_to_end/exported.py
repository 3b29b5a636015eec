"""The programs of exported pages in a browser, without their forms and buttons."""

import base64
import json
import re

import numpy as np
import torch

from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM

_START = """([program, config, weights, simd]) => {
    const worker = new Worker(URL.createObjectURL(new Blob([program], { type: "text/javascript" })));
    let answered = null, messages = [];
    worker.onmessage = ({ data }) => {
        messages.push(data);
        if (["loaded", "encoded", "done", "failed"].includes(data.type)) {
            answered(messages);
            messages = [];
        }
    };
    window.ask = (message) => new Promise((resolve) => { answered = resolve; worker.postMessage(message); });
    const buffer = Uint8Array.from(atob(weights), (character) => character.charCodeAt(0)).buffer;
    return ask({ type: "load", config, buffer, simd });
}"""
_ENCODE = """async (texts) => {
    const answers = [];
    for (const text of texts) answers.push(...(await ask({ type: "encode", text })));
    return answers;
}"""


def parts(html: str) -> dict[str, str]:
    """The contents of a page's elements `worker`, `config` and `weights`."""
    found = re.findall(r'<script type="[\w/]+" id="(\w+)">(.*?)</script>', html, re.DOTALL)
    return dict(found)


def model_in(html: str, model: LanguageModel) -> LanguageModel:
    """The exported model with the weights of the page, decoded here by NumPy."""
    config, data = json.loads(parts(html)["config"]), base64.b64decode(parts(html)["weights"])

    def decoded(shape: list[int], offset: int) -> np.ndarray:
        count = int(np.prod(shape))
        if len(shape) == 1:
            return np.frombuffer(data, "<f4", count, offset)
        if config["precision"] == "int8":
            scales = np.frombuffer(data, "<f4", shape[0], offset)
            return np.frombuffer(data, "i1", count, offset + 4 * shape[0]).reshape(shape) * scales[:, None]
        if config["precision"] == "bf16":
            return (np.frombuffer(data, "<u2", count, offset).astype("u4") << 16).view("f4").reshape(shape)
        return np.frombuffer(data, "<f2", count, offset).astype("f4").reshape(shape)

    weights = {t["name"]: torch.tensor(decoded(t["shape"], t["offset"])) for t in config["tensors"]}
    if model.network.config.tie:
        weights["decoder.weight"] = weights["embedding.weight"]
    network = RecurrentLM(model.network.config, model.network.vocab_size)
    network.load_state_dict(weights)
    return LanguageModel(network.eval(), model.tokenizer, model.facts)


class Program:
    """The program of a page in an empty tab of a browser."""

    def __init__(self, tab, html: str, simd: bool = True):
        self.tab = tab
        found = parts(html)
        config = json.loads(found["config"])
        self.loaded = tab.evaluate(_START, [found["worker"], config, found["weights"], simd])[0]
        assert self.loaded["type"] == "loaded", self.loaded

    def encode(self, texts: list[str]) -> list[dict]:
        """The tokens, and the unknown parts, of each text."""
        return self.tab.evaluate(_ENCODE, texts)

    def write(self, prompt: str, **settings) -> list[dict]:
        """The tokens that the program writes: each with its text, log-probability and alternatives."""
        request = {"type": "write", "key": 1, "prompt": prompt, "temperature": 0, "topP": 1, "seed": 1}
        messages = self.tab.evaluate("(request) => ask(request)", {**request, **settings})
        assert messages[-1]["type"] == "done", messages[-1]
        return [token for message in messages if message["type"] == "tokens" for token in message["batch"]]
