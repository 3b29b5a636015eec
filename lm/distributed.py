"""Data-parallel training: the processes (ranks) that `torchrun` starts to train one network.

Every rank reads its share of the streams and has all the weights. Gradients are summed, so all ranks take the
same step. Anything that depends on a clock, a signal or the disk is decided by one rank for all: if one rank
left the loop on its own, the others would wait for it. Only rank 0 writes and prints.

A rank that ends closes its connections. The other ranks then get `RankLost` from their next collective
operation, so errors need not be sent around.

A single process is rank 0 of 1. Everything here is then a no-op, and torch.distributed is not used.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lm.console.wording import plural
from lm.errors import UserError, one_line

if TYPE_CHECKING:  # torch is imported only where it is needed: `--help` should not wait for it
    import torch
    from torch import Tensor

# How long a rank may keep the others waiting, for example while it tokenizes the text. A rank that dies is
# noticed immediately.
_TIMEOUT = timedelta(minutes=30)
_HEAD_START = 0.3  # seconds for rank 0 to report an error that all ranks raise


class RankLost(UserError):
    """Another rank has ended, so this one cannot continue."""


class RanksDisagree(UserError):
    """The ranks have different settings or data. All of them raise it."""


@dataclass(frozen=True)
class Ranks:
    """This process and the others it trains with."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # rank within this machine
    machine: int = 0
    store: Any = None  # torchrun's key-value store

    @property
    def is_single_process(self) -> bool:
        """Whether this is the only process."""
        return self.world_size == 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The slice of `count` items, such as streams of text, that belongs to this rank."""
        return share_of(count, self.rank, self.world_size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place, and return it."""
        if not self.is_single_process:
            import torch.distributed as dist

            with _detecting_lost_ranks():
                dist.all_reduce(tensor)
        return tensor

    def all_true(self, value: bool) -> bool:
        """Whether `value` is true on all ranks."""
        if self.is_single_process:
            return value
        import torch

        return int(self.all_reduce(torch.tensor(int(not value)))) == 0

    def compute_shared(
        self, make: Callable[[int], Tensor], like: Sequence[Tensor], costs: Sequence[float]
    ) -> list[Tensor]:
        """The tensor that `make(number)` returns for each number, in the shape of `like[number]`; each is
        computed by one rank and sent to the others.

        The most expensive ones are assigned first, each to the rank with the least work so far.
        """
        if self.is_single_process:
            return [make(number) for number in range(len(like))]
        import torch
        import torch.distributed as dist

        loads, makers = [0.0] * self.world_size, [0] * len(like)
        for number in sorted(range(len(like)), key=lambda number: -costs[number]):
            makers[number] = rank = loads.index(min(loads))
            loads[rank] += costs[number]
        made, sending = [], []
        for number, maker in enumerate(makers):
            own = maker == self.rank
            made.append(make(number).contiguous() if own else torch.empty_like(like[number]))
            with _detecting_lost_ranks():
                # While it is sent, the next one is computed.
                sending.append(dist.broadcast(made[-1], maker, async_op=True))
        with _detecting_lost_ranks():
            for work in sending:
                work.wait()
        return made

    def start_agreement(self, clock: float, signals: list[int]) -> Callable[[], tuple[float, int]]:
        """Start an all-reduce of the clock and the signals. Compute something else, then call the returned
        function: it returns rank 0's `clock` in seconds and a signal that any rank has received, or 0."""
        if self.is_single_process:
            return lambda: (clock, max(signals, default=0))
        import torch
        import torch.distributed as dist

        values = torch.tensor(
            [clock if self.is_main_process else 0.0, max(signals, default=0)], dtype=torch.float64
        )
        with _detecting_lost_ranks():
            work = dist.all_reduce(values, dist.ReduceOp.MAX, async_op=True)

        def agreed() -> tuple[float, int]:
            with _detecting_lost_ranks():
                work.wait()
            return values[0].item(), int(values[1])

        return agreed

    def broadcast(self, tensors: Iterable[Tensor], source: int = 0) -> None:
        """Copy the values of rank `source` into `tensors`, in place."""
        if self.is_single_process:
            return
        import torch.distributed as dist

        with _detecting_lost_ranks():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), source)

    def broadcast_object(self, make: Callable[[], Any], source: int = 0) -> Any:
        """The JSON value that `make` returns on rank `source`. The other ranks do not call it."""
        if self.is_single_process:
            return make()
        import torch

        text = json.dumps(make()).encode() if self.rank == source else b""
        length = torch.tensor([len(text)])
        self.broadcast([length], source)
        content = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8)
        self.broadcast([content], source)
        return json.loads(bytes(content.tolist()))

    def broadcast_tensors(self, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors by name, on the CPU, that `make` returns on rank 0. The other ranks do not call it."""
        if self.is_single_process:
            return make()
        import torch

        made = {name: tensor.contiguous() for name, tensor in make().items()} if self.is_main_process else {}
        kinds = self.broadcast_object(lambda: {n: [list(t.shape), str(t.dtype)[6:]] for n, t in made.items()})
        for name, (shape, dtype) in kinds.items():
            tensor = made.setdefault(name, torch.empty(shape, dtype=getattr(torch, dtype)))
            self.broadcast([tensor.view(-1).view(torch.uint8)])
        return made

    def all_gather(self, part: Tensor, dim: int, rows: slice, count: int) -> Tensor:
        """Join a tensor with `count` rows along `dim`, of which each rank has the part `rows`."""
        import torch

        whole = part.new_zeros(*part.shape[:dim], count, *part.shape[dim + 1 :])
        whole.narrow(dim, rows.start, rows.stop - rows.start).copy_(part)
        # Adding zeros leaves bytes as they are, whatever the type.
        self.all_reduce(whole.view(-1).view(torch.uint8))
        return whole

    def check_same(self, values: dict[str, Any], remedy: str) -> None:
        """Raise RanksDisagree, ending with `remedy`, if the JSON `values` differ from those of rank 0."""
        if self.is_single_process:
            return
        import torch

        first, ours = self.broadcast_object(lambda: values), json.loads(json.dumps(values))
        differences = [
            f"{name} is {_shown(ours.get(name))}, not {_shown(first.get(name))}"
            for name in {**first, **ours}
            if first.get(name) != ours.get(name)
        ]
        odd = torch.zeros(self.world_size)
        odd[self.rank] = len(differences)
        if not self.all_reduce(odd).any():
            return
        rank = int(odd.gt(0).nonzero()[0])
        # Known to all, since any of them may report it.
        what = self.broadcast_object(lambda: ", ".join(differences), rank)
        raise RanksDisagree(f"rank {rank} does not agree with rank 0: {what}; {remedy}")

    def one_on_each_machine(self, make: Callable[[], Any]) -> Any:
        """What `make` returns. One rank per machine calls it first; the others then find its result in the
        cache. There is no time limit."""
        if self.is_single_process:
            return make()
        done = f"made on machine {self.machine}"
        with _detecting_lost_ranks():
            while self.local_rank > 0 and not self.store.check([done]):
                time.sleep(0.05)
        made = make()
        with _detecting_lost_ranks():
            self.store.set(done, "")
        return made

    def take_device(self, device: torch.device) -> None:
        """Make "cuda" mean `device` or, with several ranks, this rank's own GPU.

        Raises UserError if there are fewer GPUs than ranks, or if `device` names one of them.
        """
        if device.type == "cpu" or (self.is_single_process and device.index is None):
            return
        import torch

        if self.is_single_process:
            torch.cuda.set_device(device)
            return
        if device.index is not None:
            raise UserError(f"--device {device}: each rank takes a GPU of its own; use --device cuda.")
        if device.type != "cuda":
            raise UserError(f"--device {device.type} supports only one process: use --device cpu.")
        if self.local_rank >= (count := torch.cuda.device_count()):
            raise UserError(
                f"this machine has {plural(count, 'GPU')}, fewer than ranks: use --nproc-per-node {count}"
                " or --device cpu."
            )
        torch.cuda.set_device(self.local_rank)


ALONE = Ranks()


def share_of(count: int, number: int, shares: int) -> slice:
    """The slice of `count` items that is share `number` of `shares`; sizes differ by at most one."""
    return slice(count * number // shares, count * (number + 1) // shares)


def rank_count() -> int:
    """The number of processes that `torchrun` has started to train together; otherwise 1."""
    return _from_environment("WORLD_SIZE", 1)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other ranks, if `torchrun` has started any, until the block ends.

    An error that several ranks raise is reported by one of them; the others raise SystemExit.
    """
    size = rank_count()
    if size <= 1:
        yield ALONE
        return
    ranks = _join(size)
    try:
        yield ranks
    except BaseException as error:
        # torch's own exit would wait for ranks that are gone, and sometimes abort.
        interrupted = isinstance(error, KeyboardInterrupt)
        atexit.register(_leave, 2 if isinstance(error, UserError) else 130 if interrupted else 1)
        if isinstance(error, UserError):
            _report_once(ranks, error)
        raise
    import torch.distributed as dist

    dist.destroy_process_group()


def _report_once(ranks: Ranks, error: UserError) -> None:
    """Raise SystemExit on all ranks except the one that reports the error."""
    # torchrun ends the other ranks as soon as one has ended: the line must be printed first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    own = not isinstance(error, (RankLost, RanksDisagree))
    if own and not ranks.is_main_process:
        time.sleep(_HEAD_START)
    try:
        reported = ranks.store.add("reported", 1) > 1
    except RuntimeError:  # the process that hosts the store is gone
        reported = False
    if reported:
        sys.exit(2)
    if own and not ranks.is_main_process:
        raise UserError(f"rank {ranks.rank}: {error}") from error


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _join(size: int) -> Ranks:
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    rank = _from_environment("RANK", 0)
    try:
        store, rank, size = next(rendezvous("env://", rank, size, timeout=_TIMEOUT))
        # Small values are exchanged over the CPU, so that nobody waits for a GPU.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"rank {rank} cannot join the other ranks: {one_line(error)}") from error
    local, machine = _from_environment("LOCAL_RANK", 0), _from_environment("GROUP_RANK", 0)
    return Ranks(rank, size, local, machine, dist.PrefixStore("lm", store))


def _from_environment(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"${name} is '{os.environ[name]}', not a number: start with torchrun.") from None


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


@contextmanager
def _detecting_lost_ranks() -> Iterator[None]:
    """Raise RankLost if torch cannot reach another rank."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost("another rank has ended, so this one ends too: see its error.") from error
