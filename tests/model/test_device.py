"""Which devices and precisions are chosen, and how torch is configured for them."""

import warnings

import pytest
import torch

from lm.distributed import ALONE, Ranks
from lm.errors import UserError
from lm.model.device import (
    Precision,
    autocast,
    choose_device,
    choose_precision,
    current,
    precision_facts,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch):
    """A function that makes torch believe in a GPU. Its settings are reset after the test."""
    layers, matrices = torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    before = layers.fp32_precision, matrices.fp32_precision

    def with_gpu(capability=(9, 0), cudnn=91900):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)

    yield with_gpu
    layers.fp32_precision, matrices.fp32_precision = before


def float32_products():
    return torch.backends.cudnn.rnn.fp32_precision, torch.backends.cuda.matmul.fp32_precision


def test_a_missing_device_is_a_user_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda"):
        choose_device("cuda")
    assert choose_device("auto").type in ("cpu", "mps")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_gpu_is_chosen_by_its_index(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cuda") == choose_device("auto") == torch.device("cuda")


def test_a_device_may_be_one_of_torch(two_gpus):
    for device in (torch.device("cuda", 1), torch.device("cpu")):
        assert choose_device(device) == device
    with pytest.raises(UserError, match="--device cuda:2 is not available"):
        choose_device(torch.device("cuda", 2))


@pytest.mark.parametrize("name", ["cuda:2", "tpu", "cuda:x"])
def test_an_error_names_the_devices_that_there_are(two_gpus, name):
    with pytest.raises(
        UserError, match=f"--device {name} is not .* machine; it has cpu, cuda, cuda:0, cuda:1"
    ):
        choose_device(name)


def test_a_rank_takes_the_gpu_of_its_number_and_none_by_name(two_gpus, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    second = Ranks(rank=1, world_size=2, local_rank=1)
    second.take_device(CUDA)
    assert taken == [1]
    with pytest.raises(
        UserError, match="--device cuda:0: each rank takes a GPU of its own; use --device cuda"
    ):
        second.take_device(torch.device("cuda", 0))
    assert taken == [1]


def test_a_single_process_makes_the_named_gpu_current(two_gpus, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    ALONE.take_device(torch.device("cuda", 1))
    ALONE.take_device(CUDA)
    ALONE.take_device(CPU)
    assert taken == [torch.device("cuda", 1)]


def test_a_cpu_is_current_without_torch_being_told():
    with current(CPU):
        assert torch.ones(1).device == CPU


def test_precision_auto_follows_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert choose_precision("auto", CPU) is Precision.BF16
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert choose_precision("auto", CPU) is Precision.FP32
    assert choose_precision("bf16", CPU) is Precision.BF16


@pytest.mark.parametrize(
    ("name", "capability", "cudnn", "expected", "facts"),
    [
        ("auto", (9, 0), 91300, Precision.BF16, "bf16"),
        ("auto", (9, 0), 91200, Precision.FP16, "fp16 (this cuDNN has no bfloat16 layers)"),
        ("bf16", (8, 0), 90100, Precision.FP16, "fp16 (this cuDNN has no bfloat16 layers)"),
        ("bf16", (8, 0), None, Precision.FP16, "fp16 (this cuDNN has no bfloat16 layers)"),
        ("fp16", (9, 0), 91200, Precision.FP16, "fp16"),
        ("auto", (7, 5), 91300, Precision.FP16, "fp16"),
        ("auto", (6, 1), 91300, Precision.FP32, "fp32"),
        ("tf32", (8, 0), 91300, Precision.TF32, "tf32"),
    ],
)
def test_precision_follows_the_gpu_and_its_cudnn(machine, name, capability, cudnn, expected, facts):
    machine(capability, cudnn)
    assert choose_precision(name, CUDA) is expected
    assert precision_facts(name, expected, CUDA) == facts


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16", "auto"])
def test_only_tf32_rounds_float32_products_on_a_gpu(machine, name):
    machine()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_precision("tf32", CUDA)
        assert float32_products() == ("tf32", "tf32")
        choose_precision(name, CUDA)
        assert float32_products()[1] == "ieee"
        if name in ("fp32", "fp16"):
            assert float32_products()[0] == "ieee"


def test_layers_in_bfloat16_may_use_tensor_cores(machine):
    """torch asks for TF32 where it should ask for the type of the layers."""
    machine()
    choose_precision("bf16", CUDA)
    assert float32_products() == ("tf32", "ieee")


def test_layers_have_the_precision_of_the_last_computation(machine, monkeypatch):
    machine()
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **settings: None)
    for precision, expected in (("bf16", "tf32"), ("fp32", "ieee"), ("tf32", "tf32"), ("fp16", "ieee")):
        autocast(CUDA, Precision(precision))
        assert float32_products()[0] == expected


def test_a_choice_for_the_cpu_changes_no_setting_of_the_gpu():
    before = float32_products()
    choose_precision("fp32", CPU)
    assert float32_products() == before


@pytest.mark.parametrize("name", ["fp16", "tf32"])
def test_precisions_of_gpus_are_user_errors_on_a_cpu(name):
    with pytest.raises(UserError, match=f"--precision {name} requires a CUDA GPU"):
        choose_precision(name, CPU)


def test_tf32_requires_a_gpu_that_has_it(machine):
    machine(capability=(7, 5))
    with pytest.raises(UserError, match="since Ampere"):
        choose_precision("tf32", CUDA)


def test_an_unknown_precision_is_a_user_error():
    with pytest.raises(UserError, match="must be one of auto, fp32, tf32, bf16, fp16, got 'half'"):
        choose_precision("half", CPU)


@pytest.mark.parametrize("precision", Precision)
def test_autocast_computes_products_in_the_dtype_of_the_precision(precision):
    x = torch.ones(2, 2)
    with autocast(CPU, precision):
        assert (x @ x).dtype == precision.dtype


def test_eps_is_the_distance_from_one_to_the_next_number():
    spacings = {precision.value: precision.eps for precision in Precision}
    assert spacings == {"fp32": 2**-23, "tf32": 2**-10, "bf16": 2**-7, "fp16": 2**-10}


def test_within_another_autocast_weights_that_have_changed_are_cast_again():
    weight, x = torch.nn.Parameter(torch.ones(4, 4)), torch.ones(4)
    with torch.autocast("cpu", enabled=False):
        for factor in (1, 2):
            with autocast(CPU, Precision.BF16):
                product = torch.nn.functional.linear(x, weight)
            assert product.tolist() == [4.0 * factor] * 4
            with torch.no_grad():
                weight.mul_(2)
