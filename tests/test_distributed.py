"""Several ranks learn what one process learns, agree on every decision, and only rank 0 writes.

They are forked from a process that has already imported torch, with a key-value store like torchrun's. The
real torchrun is tested in tests/end_to_end/test_ranks.py.
"""

import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from lm import distributed
from lm.cli.parser import run
from lm.cli.train import main
from lm.distributed import RankLost
from lm.training import loop
from lm.training.display import Display
from lm.training.step import Step
from tests.conftest import some_text
from tests.model.recorded import train_as_on_a_gpu

FORKS = multiprocessing.get_context("forkserver")
# The last two take a second each and are imported by torch's optimizers and by --streaming.
FORKS.set_forkserver_preload(["lm.cli.train", "lm.training.loop", "torch._dynamo", "datasets"])
NET = ["--hidden-size", "24", "--layers", "2", "--batch-size", "8", "--bptt", "16", "--precision", "fp32"]
EXACT = [*NET, "--dropout", "0", "--lr", "0.01", "--sample-every", "0", "--eval-every", "20", "--steps", "50"]


@pytest.fixture(autouse=True)
def here(here):
    (here / "t.txt").write_text(some_text(12_000))
    return here


def _rank(environment, folder, arguments, prepare):
    prepare()
    os.environ |= environment
    os.chdir(folder)
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(f"{name}{environment['RANK']}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, number)
    code = run(lambda: main(list(map(str, arguments))))
    sys.stdout.flush()
    os._exit(code)


class Ranks:
    """Running ranks. `arguments`: for all of them, or a list per rank; `machines`: a folder per rank;
    `prepare`: called first by each of them."""

    def __init__(self, here, size, arguments, machines=None, prepare=int):
        self.folders = machines or [here] * size
        each = arguments if isinstance(arguments[0], list) else [arguments] * size
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes = []
        for rank in range(size):
            environment = {
                "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(0 if machines else rank),
                "GROUP_RANK": str(rank if machines else 0), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self._store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
                "LM_CACHE": str(self.folders[rank] / "cache"),
            }  # fmt: skip
            process = FORKS.Process(target=_rank, args=(environment, self.folders[rank], each[rank], prepare))
            process.start()
            self.processes.append(process)

    def wait(self):
        """The exit statuses."""
        deadline = time.monotonic() + 60
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
            assert process.exitcode is not None, "the ranks wait for each other forever"
        return [process.exitcode for process in self.processes]

    def output(self, name="err"):
        """Everything they printed."""
        files = (folder / f"{name}{rank}" for rank, folder in enumerate(self.folders))
        return "".join(file.read_text() for file in files if file.exists())


def ranks(here, size, *arguments, **options):
    """Run ranks until they end."""
    started = Ranks(here, size, list(arguments), **options)
    return started.wait(), started


def trained(here, size, *arguments, **options):
    """Ranks that ended successfully."""
    if size == 1:
        assert main([*map(str, arguments), "--quiet"]) == 0
        return None
    codes, started = ranks(here, size, *arguments, **options)
    assert codes == [0] * size, started.output()
    return started


def metrics(run_folder):
    records = [json.loads(line) for line in (run_folder / "training/metrics.jsonl").read_text().splitlines()]
    names = ("step", "tokens", "train_loss", "validation_loss", "learning_rate")
    return [{name: record[name] for name in names if name in record} for record in records]


def same(one, other):
    """Whether two runs learned the same, up to rounding."""
    for ours, theirs in zip(metrics(one), metrics(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, other))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-3, atol=1e-3)
    return True


def step_of(folder):
    try:
        return json.loads((folder / "training/checkpoint/progress.json").read_text())["step"]
    except (OSError, ValueError):
        return 0


def stop_at(started, folder, step, number, rank):
    while step_of(folder) < step and started.processes[rank].is_alive():
        time.sleep(0.001)
    os.kill(started.processes[rank].pid, number)
    return started.wait()


@pytest.mark.slow
def test_any_number_of_ranks_learns_the_same_and_can_resume(here):
    command = ["--dataset", "t.txt", *EXACT, "--save-every", "5"]
    trained(here, 1, *command, "--out", "one")
    trained(here, 3, *command, "--out", "three")  # with 2, 3 and 3 streams
    assert same(here / "one", here / "three")
    trained(here, 1, *command, "--accumulate", "3", "--out", "parts")
    assert same(here / "one", here / "parts")

    # A signal to one rank stops all of them at the same step.
    started = Ranks(here, 2, [*command, "--accumulate", "2", "--out", "stopped"])
    assert stop_at(started, here / "stopped", 10, signal.SIGTERM, 1) == [143, 143]
    assert started.output("out").count("Stopped and saved. Resume with: lm train --resume stopped") == 1
    assert 10 <= step_of(here / "stopped") < 50
    trained(here, 3, "--resume", "stopped", "--accumulate", "1")
    assert same(here / "one", here / "stopped")


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_nothing_is_lost(here):
    """Dropout differs between ranks, and a resumed run draws what an uninterrupted one would have drawn."""
    command = ["--dataset", "t.txt", *NET, "--dropout", "0.2", "--steps", "60", "--save-every", "7"]
    trained(here, 2, *command, "--out", "whole")
    started = Ranks(here, 2, [*command, "--out", "killed"])
    begin = time.monotonic()
    assert stop_at(started, here / "killed", 14, signal.SIGKILL, 1) == [2, -signal.SIGKILL]
    assert time.monotonic() - begin < 10
    assert started.output().startswith("error: another rank has ended, so this training ends by step ")
    assert started.output().endswith("its last checkpoint with --resume killed, on any number of ranks.\n")
    assert started.output().count("\n") == 1
    trained(here, 2, "--resume", "killed")
    assert (here / "killed/model.safetensors").read_bytes() == (here / "whole/model.safetensors").read_bytes()
    assert metrics(here / "killed") == metrics(here / "whole")
    state = load_file(here / "whole/training/checkpoint/state.safetensors")
    assert state["state.0"].shape[1] == 8  # of all streams
    assert not torch.equal(state["random.cpu.0"], state["random.cpu.1"])


@pytest.mark.slow
def test_only_rank_0_writes_and_machines_need_no_shared_disk(here):
    machines = [here / "a", here / "b"]
    for folder in machines:
        folder.mkdir()
    command = ["--dataset", here / "t.txt", *EXACT, "--save-every", "5", "--track", "tensorboard"]
    command += ["--out", "r"]
    started = Ranks(here, 2, command, machines)
    assert stop_at(started, machines[0] / "r", 10, signal.SIGINT, 0) == [130, 130]
    codes, started = ranks(here, 2, "--resume", machines=machines)
    assert codes == [2, 2]
    assert started.output() == "error: there is no run to resume in runs/.\n"
    codes, started = ranks(here, 2, "--resume", "r", machines=machines)
    assert codes == [0, 0], started.output()
    assert (machines[0] / "r/model.safetensors").exists()
    assert sorted(path.name for path in machines[1].iterdir()) == ["cache", "err1", "out1"]
    assert (machines[1] / "out1").read_text() == ""


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["--lr", "0.1"], ["--lr", "0.2"], "rank 1 does not agree with rank 0: --lr is 0.2, not 0.1; start"),
        ([], ["--dataset", "u.txt"], "rank 1 does not agree with rank 0: the text is t+u-"),
        (["--resume"], [], "rank 1 does not agree with rank 0: --resume is False, not True; start"),
        ([], ["--tokenizer", "no"], "rank 1: --tokenizer must be char, byte"),
        (["--dataset", "-"], ["--dataset", "-"], "--dataset - can only be read by one process"),
        (["--batch-size", "1"], ["--batch-size", "1"], "--batch-size 1 is too small for 2 ranks"),
    ],
)
@pytest.mark.slow
def test_errors_are_reported_once(here, first, second, message):
    (here / "u.txt").write_text("other text " * 20)
    command = ["--dataset", "t.txt", *EXACT, "--out", "r"]
    codes, started = ranks(here, 2, [*command, *first], [*command, *second])
    assert codes == [2, 2]
    assert message in started.output()
    assert started.output().count("error: ") == 1
    assert not (here / "r").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_waits_for_the_text_notices_that_the_others_have_ended(rank):
    class GoneStore:
        def check(self, keys):
            raise dist.DistNetworkError("Connection reset by peer")

        def set(self, key, value):
            raise dist.DistNetworkError("Broken pipe")

    with pytest.raises(RankLost, match=r"^another rank has ended, so this one ends too: see its error\.$"):
        distributed.Ranks(rank, 2, rank, 0, GoneStore()).one_on_each_machine(int)


@pytest.mark.slow
def test_ranks_agree_on_the_clock_and_on_rollbacks(here):
    """The loss explodes and the rate is lowered; validations and the end depend on the clock."""
    command = ["--dataset", "t.txt", *NET, "--layers", "1", "--lr", "30", "--max-time", "2s"]
    started = trained(here, 2, *command, "--out", "r")
    printed = started.output("out")
    assert 1 <= printed.count(": back to step ") <= 3
    assert printed.count("Done ") == 1


class PrintingStep(Step):
    def __call__(self, number, rate):
        print("rate of step", number, rate)
        return super().__call__(number, rate)


def print_rates_and_delay_rank_1():
    start = Display.start

    def start_late(display):  # while the clock runs
        time.sleep(0.3 * int(os.environ["RANK"]))
        start(display)

    Display.start, loop.Step = start_late, PrintingStep


def test_ranks_take_the_same_first_step_at_different_times(here):
    command = ["--dataset", "t.txt", *EXACT[:-4], "--warmup", "0", "--max-time", "0.6s", "--out", "r"]
    trained(here, 2, *command, prepare=print_rates_and_delay_rank_1)
    each = [(here / f"out{rank}").read_text().splitlines() for rank in range(2)]
    first, second = ([line for line in lines if line.startswith("rate of step")] for lines in each)
    assert first
    assert first == second


@pytest.mark.slow
def test_ranks_meet_between_two_recorded_computations(here):
    command = ["--dataset", "t.txt", *EXACT]
    trained(here, 1, *command, "--out", "one")
    started = trained(here, 2, *command, "--out", "two", prepare=train_as_on_a_gpu)
    assert "CUDA graph" not in started.output("out") + started.output()
    assert same(here / "one", here / "two")


@pytest.mark.slow
def test_ranks_share_a_streamed_text(here):
    lines = [json.dumps({"text": some_text(300, seed)}) for seed in range(60)]
    (here / "t.jsonl").write_text("\n".join(lines))
    command = ["--dataset", "t.jsonl", "--streaming", *EXACT, "--save-every", "5"]
    trained(here, 1, *command, "--out", "one")
    started = Ranks(here, 2, [*command, "--out", "two"])
    assert stop_at(started, here / "two", 10, signal.SIGTERM, 0) == [143, 143]
    trained(here, 1, "--resume", "two")
    assert same(here / "one", here / "two")
