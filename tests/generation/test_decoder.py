"""The decoder's packed step is the network's forward pass, alone and in a batch."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config import CELLS, ModelConfig, SamplingConfig
from lm.generation.decoder import BLOCK, Decoder
from lm.network import RecurrentLM

IMPLEMENTATIONS = ("fused", "reference")


def make(cell, layers=2, tie=False, embedding_size="auto", implementation="fused", seed=0):
    torch.manual_seed(seed)
    config = ModelConfig(
        cell=cell, layers=layers, hidden_size=24, tie=tie, embedding_size=embedding_size,
        cell_implementation=implementation,
    )  # fmt: skip
    network = RecurrentLM(config, 13)
    torch.nn.init.normal_(network.decoder.bias)
    for name, weight in network.recurrent.named_parameters():
        if "bias" in name:  # biases of both maps must count, and count apart in the GRU
            torch.nn.init.normal_(weight)
    return network.eval()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("cell", CELLS)
@given(
    layers=st.integers(1, 3),
    tie=st.booleans(),
    embedding_size=st.sampled_from(["auto", 5]),
    seed=st.integers(0, 50),
)
@settings(max_examples=8, deadline=None)
def test_steps_are_the_forward_pass(cell, implementation, layers, tie, embedding_size, seed):
    network = make(cell, layers, tie, embedding_size, implementation, seed)
    tokens = torch.randint(0, 13, (BLOCK, 6))
    with torch.inference_mode():
        expected, expected_state = network(tokens)
        decoder = Decoder(network)
        state = tuple(torch.zeros(layers, BLOCK, 24) for _ in expected_state)
        for step in range(6):
            logits, state = decoder.step(tokens[:, step], state)
            torch.testing.assert_close(logits, expected[:, step], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, expected_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("count", [2, BLOCK, BLOCK + 3])
def test_a_stream_writes_the_same_alone_and_in_a_batch(cell, count):
    decoder = Decoder(make(cell))
    prompt = torch.tensor([1, 4, 2])
    seeds = list(range(100, 100 + count))

    def write(seeds):
        steps = list(decoder.generate(prompt, seeds, SamplingConfig(temperature=1.2), 80, banned=[0]))
        return [([s.tokens[i] for s in steps], [s.logprobs[i] for s in steps]) for i in range(len(seeds))]

    together = write(seeds)
    for index in (0, count - 1):
        assert write(seeds[index : index + 1]) == [together[index]]  # to the last bit
    assert together[0][0] != together[1][0]


def test_banned_tokens_are_never_chosen():
    decoder = Decoder(make("gru"))
    steps = decoder.generate(torch.tensor([1]), [1, 2], SamplingConfig(temperature=5.0), 200, banned=[0, 3])
    assert not {0, 3} & {token for step in steps for token in step.tokens}


def test_alternatives_are_the_likeliest_tokens():
    network = make("rnn")
    prompt = torch.tensor([1, 5, 7])
    (step,) = Decoder(network).generate(prompt, [1], SamplingConfig(greedy=True), 1, [], alternatives=3)
    logprobs = network(prompt[None])[0][0, -1].log_softmax(-1)
    best = logprobs.topk(3)
    assert [token for token, _ in step.alternatives[0]] == best.indices.tolist()
    assert [p for _, p in step.alternatives[0]] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert step.tokens == [best.indices[0].item()]


def test_training_goes_on_without_touching_the_decoder():
    network = make("lstm").train()
    decoder = Decoder(network)
    before = decoder.step(torch.zeros(BLOCK, dtype=torch.long), (torch.zeros(2, BLOCK, 24),) * 2)[0]
    decoder.read(torch.tensor([1, 2]))
    assert network.training
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1)
    after = decoder.step(torch.zeros(BLOCK, dtype=torch.long), (torch.zeros(2, BLOCK, 24),) * 2)[0]
    assert torch.equal(before, after)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_the_same_logits(cell):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    network = make(cell)
    tokens = torch.randint(0, 13, (BLOCK,))
    zeros = tuple(torch.zeros(2, BLOCK, 24) for _ in range(2 if cell == "lstm" else 1))
    here, _ = Decoder(network).step(tokens, zeros)
    there, _ = Decoder(network.cuda()).step(tokens.cuda(), tuple(z.cuda() for z in zeros))
    torch.testing.assert_close(here, there.cpu(), atol=1e-3, rtol=1e-3)
