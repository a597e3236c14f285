"""Layers that use the whole batch when it is split over several processes.

Batch norm takes its statistics over all processes, and dropout draws one mask for all samples, so a run on N
processes trains the same as one process with the same total batch. Note: the class of a module is changed in
place, so names, parameters and `isinstance(…, nn.BatchNorm2d)` stay the same.
"""

import torch
from torch import Tensor, nn

from restora import processes


class _Synchronised:
    """Batch norm over all processes in training; torch's own SyncBatchNorm does not run on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self, nn.modules.batchnorm._BatchNorm)
        if not self.training or processes.count() == 1:
            return super().forward(x)  # type: ignore[misc]
        return _normalised(self, x)


class _BatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """Over (B,C) or (B,C,L)."""


class _BatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """Over (B,C,H,W)."""


class _BatchNorm3d(_Synchronised, nn.BatchNorm3d):
    """Over (B,C,D,H,W)."""


class _Dropout(nn.Dropout):
    """Draws one mask for the whole batch; each process uses the part of its own samples."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes.count() == 1 or not 0 < self.p < 1:
            return super().forward(x)
        layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
        size = (processes.count() * x.shape[0], *x.shape[1:])
        whole = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout).bernoulli_(1 - self.p)
        return x * (processes.own_part(whole) / (1 - self.p))


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1d,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.BatchNorm3d: _BatchNorm3d,
    nn.Dropout: _Dropout,
}


def act_as_one(module: nn.Module, *, batch_norm: bool = True) -> None:
    """Switches every dropout and (unless `batch_norm` is off) every batch norm to its synchronised class."""
    for part in module.modules():
        shared = _SHARED.get(type(part))
        if shared is not None and (batch_norm or shared is _Dropout):
            part.__class__ = shared


def _normalised(norm: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """(B,C,...) -> the same, normalised over the whole batch; updates the running averages."""
    axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    values, number = (
        (x if x.dtype == torch.float64 else x.float()),
        processes.count() * x.numel() // x.shape[1],
    )
    mean = processes.summed(values.sum(axes)) / number  # (C,)
    centred = values - mean.view(shape)
    variance = processes.summed(centred.square().sum(axes)) / number
    _take_in(norm, mean.detach(), variance.detach() * (number / max(number - 1, 1)))
    scale = torch.rsqrt(variance + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    y = centred * scale.view(shape)
    return (y if norm.bias is None else y + norm.bias.view(shape)).to(x.dtype)


@torch.no_grad()
def _take_in(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Updates running averages as torch does: by `momentum`, or the mean of all batches where it is None."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
