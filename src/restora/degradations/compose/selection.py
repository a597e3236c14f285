"""Changes only some samples of a batch, without ever waiting for a device.

Legend: B samples.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from restora.degradations.base import Params
from restora.degradations.parameters import host_knows, per_sample


def where_drawn(
    drawn: Tensor, x: Tensor, change: Callable[[Tensor, Params], Tensor], params: Params, otherwise: Tensor
) -> Tensor:
    """`change(x, params)` for the samples that are `drawn`, bool (B,), and `otherwise` for the others.

    On a device, the number of samples drawn is not known without waiting for it: all are changed, and the
    drawn ones selected. On a CPU it is known, and only those are computed: with four equally likely kinds of
    noise, each is computed for a quarter of the samples. A changed sample of one channel, a grey one, is
    repeated in all channels of the others.
    """
    if not host_knows(x):
        return torch.where(per_sample(drawn), change(x, params), otherwise)
    rows = drawn.nonzero()[:, 0]
    if len(rows) == 0:
        return otherwise
    if len(rows) == len(drawn):
        changed = change(x, params)
        return changed if changed.shape == otherwise.shape else changed.expand_as(otherwise).contiguous()
    out = otherwise.clone()
    out[rows] = change(x[rows], rows_of(params, rows))
    return out


def rows_of(params: Params, rows: Tensor) -> Params:
    """The params of the samples with numbers `rows`."""
    return {
        name: rows_of(value, rows) if isinstance(value, Mapping) else value[rows]
        for name, value in params.items()
    }
