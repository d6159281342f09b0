"""Data-parallel training: processes that share every batch, started by ``torchrun``."""

from __future__ import annotations

import gc
import importlib
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastunroll._checks import check_number

T = TypeVar("T")


@contextmanager
def process_group(timeout: float = 1800.0) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, for the ``with`` block.

    Inside, every `fastunroll.training.Trainer` shares its work with the other processes; they must
    all run the same code. Processes talk through NCCL where there are GPUs, one for each process of
    a machine, and else through gloo. A process that ``torchrun`` did not start works alone.

    Parameters
    ----------
    timeout : float
        Seconds to wait for the other processes, positive. Who waits longer fails.

    Yields
    ------
    torch.device
        Where this process should have its model and its batches.

    Raises
    ------
    TypeError, ValueError
        If ``timeout`` is not as above.
    RuntimeError
        If the others do not come, or inside the block, if one of them fails.

    Examples
    --------
    >>> with process_group() as device:
    ...     train_dictionary(model.to(device), source, 1000, directory="run")
    """
    check_number("timeout", timeout, minimum=0.0, exclusive=True)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    # DistributedDataParallel imports this module, whose functions have the group of that moment as
    # a default argument: imported in the block, it would keep the group, and its threads, for ever.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "gloo" if device.type == "cpu" else "nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield device
    except BaseException as error:
        _forget_variables(error)  # they would keep the group, too
        raise
    finally:
        gc.collect()  # what holds the group may lie in reference cycles
        dist.destroy_process_group()


class Ranks:
    """The processes of a training, of which this is one; without a process group, the only one.

    All draw the same batch from the same random numbers, and each works on its part of it. What is
    averaged is equal on all of them, so their models stay equal.

    Attributes
    ----------
    is_first : bool
        Whether this process is the one that writes files and shows progress.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self._rank = dist.get_rank() if together else 0
        self._count = dist.get_world_size() if together else 1
        self.is_first = self._rank == 0

    def parallel(self, model: nn.Module) -> Callable[[Callable[[Any, Any], Tensor], Any], Tensor]:
        """Make ``call(loss, batch)``, which returns ``loss(model, batch)`` of this part.

        The gradients of a backward pass through it are the averages over all parts.
        """
        call = _Call(model)
        if self._count == 1:
            return call
        # The graph is that of one stage, whose loss may look at some of the parameters only.
        parallel = DistributedDataParallel(call, static_graph=True)
        parallel.broadcast_buffers = False  # they change on all processes alike
        return parallel

    def part(self, batch: Any) -> Any:
        """Take this process's part of a batch: a tensor or a (named) tuple, samples first.

        Raises
        ------
        TypeError
            If the batch is something else.
        ValueError
            If the samples cannot be shared equally.
        """
        if self._count == 1:
            return batch
        if isinstance(batch, Tensor):
            size, rest = divmod(len(batch), self._count)
            if rest or not size:
                raise ValueError(
                    f"source must return batches that {self._count} processes can share equally, "
                    f"got {len(batch)} samples"
                )
            return batch[self._rank * size :][:size]
        if not isinstance(batch, tuple):
            raise TypeError(
                f"source must return a tensor or a tuple of tensors for {self._count} processes, "
                f"got {type(batch).__name__}"
            )
        parts = [self.part(item) for item in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)

    def mean(self, value: Tensor) -> float:
        """Average a number over all processes."""
        if self._count == 1:
            return value.item()
        total = value.detach().clone()
        dist.all_reduce(total)
        return total.item() / self._count

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self._count == 1:
            return flag
        return self.mean(torch.tensor(float(flag), device=_device())) > 0

    def from_first(self, compute: Callable[[], T]) -> T:
        """Compute on the first process and return its result, or raise its error, on all."""
        if self._count == 1:
            return compute()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = compute()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, device=_device())
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result


class _Call(nn.Module):
    """A loss as the forward pass of a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[Any, Any], Tensor], batch: Any) -> Tensor:
        """Return ``loss(model, batch)``."""
        return loss(self.model, batch)


def _forget_variables(error: BaseException | None) -> None:
    """Clear the variables of all calls that an error, and those behind it, have ended."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _device() -> torch.device:
    """Where tensors lie that are sent to the other processes."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
