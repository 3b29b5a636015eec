"""Several processes that train one network together, as `torchrun` starts them: the ranks.

Each reads its share of the streams and holds all the weights; the gradients are summed, so all take the
same step. Whatever is decided by a clock, a signal or the disk is decided by one rank for all: a rank
that left the loop by itself would leave the others waiting. The first rank alone writes and prints.

A rank that ends, for whatever reason, closes its connections. That is how the others learn of it, and
why no error needs to be sent around: `RankLost` is raised in whatever they do together next.

By itself a process is rank 0 of 1: nothing here does anything then, and torch.distributed is not touched.
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
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lm.errors import UserError, one_line

if TYPE_CHECKING:  # one process shall not wait for torch before its settings are looked at
    import torch
    from torch import Tensor

# As long as one may keep the others waiting, by making a token stream or while the Hub is away. It is
# not how soon a rank that died is missed: that takes no time.
_PATIENCE = timedelta(minutes=30)
_HEAD_START = 0.3  # seconds for rank 0 to tell of a mistake that all ranks meet


class RankLost(UserError):
    """Another rank has ended, so this one cannot go on."""


class RanksDisagree(UserError):
    """The ranks were started to do different things. All of them raise it."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local: int = 0  # the rank among those of this machine
    machine: int = 0
    store: Any = None  # what torchrun keeps for all ranks
    rooms: dict[Any, Tensor] = field(default_factory=dict)  # by how many numbers of which type they hold

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things in a row, as streams of text, are this rank's."""
        return share_of(count, self.rank, self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up the tensors of all ranks, in place."""
        if not self.alone:
            import torch.distributed as dist

            with _noticing_loss():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, weights: Iterable[Tensor], loss: Tensor) -> Tensor:
        """Add up the gradients of all ranks in place, and give back the sum of their losses. All in
        one piece: what takes time is not the adding but the waiting for each other."""
        if self.alone:
            return loss
        import torch

        weights = list(weights)
        parts = [*(weight.grad.flatten() for weight in weights), loss.reshape(1)]
        sizes = [len(part) for part in parts]
        room = self._room(sum(sizes), parts[0])
        *gradients, loss = self.sum(torch.cat(parts, out=room)).split(sizes)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.view_as(weight)
        return loss.reshape(()).clone()

    def shared_out(
        self, make: Callable[[int], Tensor], like: Sequence[Tensor], costs: Sequence[float]
    ) -> list[Tensor]:
        """What `make` returns for each number, a tensor in the shape of that one of `like`, made by one
        rank for all. Those that cost most are given out first, each to the rank with the least to do."""
        if self.alone:
            return [make(number) for number in range(len(like))]
        import torch
        import torch.distributed as dist

        burdens, makers = [0.0] * self.size, [0] * len(like)
        for number in sorted(range(len(like)), key=lambda number: -costs[number]):
            makers[number] = rank = burdens.index(min(burdens))
            burdens[rank] += costs[number]
        made, sending = [], []
        for number, maker in enumerate(makers):
            own = maker == self.rank
            made.append(make(number).contiguous() if own else torch.empty_like(like[number]))
            with _noticing_loss():
                sending.append(dist.broadcast(made[-1], maker, async_op=True))  # while the next is made
        with _noticing_loss():
            for work in sending:
                work.wait()
        return made

    def _room(self, size: int, like: Tensor) -> Tensor:
        """Memory for so many numbers of the kind of `like`, the same every time: fetching so much anew
        costs as much as the copy into it."""
        if (room := self.rooms.get((size, like.dtype))) is None:
            room = self.rooms[size, like.dtype] = like.new_empty(size)
        return room

    def agreeing(self, clock: float, signals: list[int]) -> Callable[[], tuple[float, int]]:
        """Begin to agree; the function that is returned ends it: what rank 0's `clock` showed, and
        the number of a signal that some rank has received, or 0. In between there is time to compute."""
        if self.alone:
            return lambda: (clock, max(signals, default=0))
        import torch
        import torch.distributed as dist

        values = torch.tensor([clock if self.first else 0.0, max(signals, default=0)], dtype=torch.float64)
        with _noticing_loss():
            work = dist.all_reduce(values, dist.ReduceOp.MAX, async_op=True)

        def agreed() -> tuple[float, int]:
            with _noticing_loss():
                work.wait()
            return values[0].item(), int(values[1])

        return agreed

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give each of `tensors` the values that it has on rank 0."""
        if not self.alone:
            self._copy(0, tensors)

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What `make` returns on rank 0, which can be written as JSON. The others do not call it."""
        return make() if self.alone else self._from(0, make)

    def tensors_from_first(self, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors by name, on the CPU, that `make` returns on rank 0. The others do not call it."""
        if self.alone:
            return make()
        import torch

        made = {name: tensor.contiguous() for name, tensor in make().items()} if self.first else {}
        kinds = self.from_first(lambda: {n: [list(t.shape), str(t.dtype)[6:]] for n, t in made.items()})
        for name, (shape, dtype) in kinds.items():
            tensor = made.setdefault(name, torch.empty(shape, dtype=getattr(torch, dtype)))
            self.copy_from_first([tensor.view(-1).view(torch.uint8)])
        return made

    def joined(self, part: Tensor, dim: int, rows: slice, count: int) -> Tensor:
        """The whole tensor, with `count` rows along `dim`, of which each rank has a part: its `rows`."""
        import torch

        whole = part.new_zeros(*part.shape[:dim], count, *part.shape[dim + 1 :])
        whole.narrow(dim, rows.start, rows.stop - rows.start).copy_(part)
        # Bytes to which only zeros are added stay what they are, in every type.
        self.sum(whole.view(-1).view(torch.uint8))
        return whole

    def check_same(self, values: dict[str, Any], remedy: str) -> None:
        """Raise RanksDisagree if `values`, which can be written as JSON, are not those of rank 0."""
        if self.alone:
            return
        import torch

        first, ours = self.from_first(lambda: values), json.loads(json.dumps(values))
        differences = [
            f"{name} is {_shown(ours.get(name))}, not {_shown(first.get(name))}"
            for name in {**first, **ours}
            if first.get(name) != ours.get(name)
        ]
        odd = torch.zeros(self.size)
        odd[self.rank] = len(differences)
        if not self.sum(odd).any():
            return
        rank = int(odd.gt(0).nonzero()[0])
        what = self._from(rank, lambda: ", ".join(differences))  # so that whoever tells can tell it
        raise RanksDisagree(f"rank {rank} does not agree with rank 0: {what}; {remedy}")

    def one_on_each_machine(self, make: Callable[[], Any]) -> Any:
        """What `make` returns, called by one rank on each machine before the others, which find in
        the cache what the first has made. However long that takes: the others do not ask for more."""
        if self.alone:
            return make()
        done = f"made on machine {self.machine}"
        while self.local > 0 and not self.store.check([done]):
            time.sleep(0.05)
        made = make()
        self.store.set(done, "")
        return made

    def take_device(self, device: torch.device) -> None:
        """From here on "cuda" is this rank's own GPU. Raises UserError if there is none left."""
        if self.alone or device.type == "cpu":
            return
        import torch

        if device.type != "cuda":
            raise UserError(f"--device {device.type} serves one process; with several name --device cpu.")
        if self.local >= (count := torch.cuda.device_count()):
            raise UserError(
                f"this machine has {count} GPUs for more ranks than that: start as many by"
                f" --nproc-per-node {count}, or name --device cpu."
            )
        torch.cuda.set_device(self.local)

    def _copy(self, rank: int, tensors: Iterable[Tensor]) -> None:
        import torch.distributed as dist

        with _noticing_loss():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=rank)

    def _from(self, rank: int, make: Callable[[], Any]) -> Any:
        import torch

        text = json.dumps(make()).encode() if self.rank == rank else b""
        length = torch.tensor([len(text)])
        self._copy(rank, [length])
        content = torch.tensor(list(text) or [0] * length.item(), dtype=torch.uint8)
        self._copy(rank, [content])
        return json.loads(bytes(content.tolist()))


ALONE = Ranks()


def share_of(count: int, number: int, shares: int) -> slice:
    """Which of `count` things in a row belong to share `number`; the sizes differ by one at most."""
    return slice(count * number // shares, count * (number + 1) // shares)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other ranks, if `torchrun` has started any, until the block ends.

    A mistake that several ranks meet is told by one of them: the others raise SystemExit.
    """
    size = _from_environment("WORLD_SIZE", 1)
    if size <= 1:
        yield ALONE
        return
    ranks = _join(size)
    try:
        yield ranks
    except BaseException as error:
        # torch's own end would wait for ranks that are gone, and now and then abort.
        mistake, interrupted = isinstance(error, UserError), isinstance(error, KeyboardInterrupt)
        atexit.register(_leave, 2 if mistake else 130 if interrupted else 1)
        if mistake:
            _tell_once(ranks, error)
        raise
    import torch.distributed as dist

    dist.destroy_process_group()


def _tell_once(ranks: Ranks, error: UserError) -> None:
    """Raise SystemExit on all ranks but the one that is to tell the error."""
    # torchrun ends the others as soon as one has ended: first the line shall be told.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    own = not isinstance(error, (RankLost, RanksDisagree))
    if own and not ranks.first:
        time.sleep(_HEAD_START)
    try:
        told = ranks.store.add("told", 1) > 1
    except RuntimeError:  # who kept the store is gone
        told = False
    if told:
        sys.exit(2)
    if own and not ranks.first:
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
        store, rank, size = next(rendezvous("env://", rank, size, timeout=_PATIENCE))
        # Small things are agreed on by the CPUs, so that no one ever waits for a GPU for that.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"rank {rank} cannot join the others: {one_line(error)}") from error
    local, machine = _from_environment("LOCAL_RANK", 0), _from_environment("GROUP_RANK", 0)
    return Ranks(rank, size, local, machine, dist.PrefixStore("lm", store))


def _from_environment(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise UserError(f"${name} is '{os.environ[name]}', not a number: start by torchrun.") from None


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


@contextmanager
def _noticing_loss() -> Iterator[None]:
    """Raise RankLost where torch says that it cannot reach another rank."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost("another rank has ended, and so does this one.") from error
