"""Saves and restores the running statistics of norms, which a forward pass in training changes.

They are saved before a step and restored if it is skipped, in a few calls for all of them. Norms in
evaluation mode (frozen ones, and those of the weights' average) do not change and are left out.
"""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase


class Statistics:
    """Running means, variances and counts of a module's norms, and their copies made by `keep`."""

    def __init__(self, module: LightningModule) -> None:
        norms = [part for part in module.modules() if isinstance(part, _NormBase) and part.training]
        values = [value for norm in norms for value in norm.buffers(recurse=False)]
        kinds = dict.fromkeys(value.dtype for value in values)
        self._groups = [_Group([value for value in values if value.dtype == kind]) for kind in kinds]

    def keep(self) -> None:
        for group in self._groups:
            torch._foreach_copy_(group.kept, group.values)

    def put_back(self) -> None:
        for group in self._groups:
            torch._foreach_copy_(group.values, group.kept)

    def put_back_where(self, lost: Tensor) -> None:
        """Restores the copies if the scalar is true, without host synchronisation; also replaces NaNs."""
        for group in self._groups:
            group.put_back_where(lost)


class _Group:
    """Tensors of one dtype; their copies are views of one flat tensor."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values = values
        self._flat = torch.cat([value.reshape(-1) for value in values])
        self.kept = self._views(self._flat)

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([value.numel() for value in self.values])
        return [part.view(value.shape) for part, value in zip(parts, self.values, strict=True)]

    def put_back_where(self, lost: Tensor) -> None:
        now = torch.cat([value.reshape(-1) for value in self.values])
        torch._foreach_copy_(self.values, self._views(torch.where(lost, self._flat, now)))
