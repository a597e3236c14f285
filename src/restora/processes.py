"""Collective operations of a distributed run: what a step computes over the whole batch.

Enters: tensors of this process's part of the batch. Leaves: the values that a single process with the whole
batch would have. In a run of one process every function returns its input. All processes must call the
functions in the same order, as they do in a training step.

Legend: B samples of this process, N processes.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor


def count() -> int:
    """N; 1 where no process group is open."""
    return torch.distributed.get_world_size() if _several() else 1


def rank() -> int:
    """This process's rank, from 0 to N - 1."""
    return torch.distributed.get_rank() if _several() else 0


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class _Summed(torch.autograd.Function):
    """The sum over the processes. Each process's loss depends on every process's part, so gradients are
    summed too; DDP then averages them over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return cast(Tensor, _Summed.apply(grad.contiguous()))  # type: ignore[no-untyped-call]


def summed(x: Tensor) -> Tensor:
    """The sum over the processes, with its gradient."""
    return cast(Tensor, _Summed.apply(x)) if count() > 1 else x  # type: ignore[no-untyped-call]


def averaged(x: Tensor) -> Tensor:
    """The mean over the processes, with its gradient; for means of equally many values, the overall mean."""
    return summed(x) / count() if count() > 1 else x


def averaged_scalars(values: Iterable[Tensor]) -> list[Tensor]:
    """The means of several scalars over the processes, in one exchange, without gradient, float32."""
    row = [value.detach().float() for value in values]
    if count() == 1 or not row:
        return row
    together = torch.stack(row)
    torch.distributed.all_reduce(together)
    return list((together / count()).unbind())


def gathered(x: Tensor) -> Tensor:
    """(B,...) of each process -> (N·B,...) in the order of the whole batch, without gradient."""
    if count() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(count())]
    torch.distributed.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def own_part(x: Tensor) -> Tensor:
    """(N·B,...) -> (B,...) of this process."""
    return x if count() == 1 else x.chunk(count())[rank()]


def uniform(samples: int, *shape: int, device: torch.device) -> Tensor:
    """(B,...) in [0,1) from torch's global generator, which all processes seed alike at each step."""
    return own_part(torch.rand(count() * samples, *shape, device=device))
