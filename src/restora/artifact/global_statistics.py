"""Statistics of the whole photo for networks that use them and restore it in tiles.

Restormer's attention weighs channels by products summed over all pixels; `BlindDRUNet` balances colours by
means over all pixels. For a tile alone these differ from those of the photo, so brightness and colours depend
on the size of tiles. Here they are computed once, from patches from all over the photo, and used in every
tile. For attention the patches are joined into a photo of the size of a tile; means are those of patches
that are seen one by one, because a network that looks for blur must not see the seams.

Note: patches, not a reduced photo: reducing averages noise out, which the attention depends on. Measured with
a Restormer of 0.7 M parameters, trained for four minutes, on photos of Kodak24 with noise of 25: the largest
difference, in levels, of the means of blocks of 16x16 pixels from those of the photo in one piece.

| | tiles of 128, kodim01 | kodim02 | tiles of 256, kodim01 |
|---|---:|---:|---:|
| each by itself | 0.34 | 0.33 | 0.15 |
| patches of 32 pixels | 0.08 | 0.07 | 0.03 |
| patches of 64 pixels | 0.14 | 0.36 | 0.05 |
| the photo reduced by areas (loses 0.2 dB) | 0.48 | 0.68 | 0.32 |

Legend: C channels, K condition channels, H height, W width, h heads, c channels of a head, F features.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from restora.networks.base import Network
from restora.networks.layers.restormer_blocks import TransposedAttention
from restora.networks.layers.whole_photo import WholePhoto

PATCH = 32
"""The side of the patches that are joined."""
PATCH_ALONE = 128
"""The side of those that are seen one by one: about that of training."""

Statistic = Callable[..., Tensor]


def attentions(network: Network) -> list[TransposedAttention]:
    """The attentions of a network that use the whole photo; none that was converted to windows."""
    found = [module for module in network.modules() if isinstance(module, TransposedAttention)]
    return [module for module in found if getattr(module, "window", None) is None]


def means(network: Network) -> list[WholePhoto]:
    """The modules of a network that use means over the whole photo."""
    return [module for module in network.modules() if isinstance(module, WholePhoto)]


def of_whole_photo(
    network: Network,
    x: Tensor,
    condition: Tensor | None,
    *,
    side: int,
    device: torch.device,
    autocast: AbstractContextManager[object],
) -> Network:
    """A network of the same weights that uses the statistics of (1,C,H,W) and (1,K,H,W) for any photo.

    They are taken on as many pixels as a tile of `side` x `side` has. `network` is not changed.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    fixed = copy.deepcopy(network, shared)
    modules: list[Any] = [*attentions(fixed), *means(fixed)]
    kept: dict[int, Tensor] = {}

    def record(index: int, statistic: Statistic, *inputs: Tensor) -> Tensor:
        value = statistic(*inputs)
        if isinstance(modules[index], WholePhoto):
            value = value.mean(0, keepdim=True)  # (1,F), of all patches
        kept[index] = value
        return value

    for index, module in enumerate(modules):
        module.statistic = partial(record, index, module.statistic)
    joined = bool(attentions(fixed))
    together = _joined if joined else _one_by_one
    places = _places(x.shape[2], x.shape[3], side, PATCH if joined else PATCH_ALONE)
    maps = None if condition is None else together(condition, places).to(device)
    with autocast:
        fixed(together(x, places).to(device), maps)
    for index, module in enumerate(modules):
        module.statistic = partial(_replayed, kept[index])
    return fixed


def _replayed(value: Tensor, *_inputs: Tensor) -> Tensor:
    return value  # (1,h,c,c) or (1,F), for any number of tiles


def _places(height: int, width: int, side: int, patch: int) -> list[list[tuple[slice, slice]]]:
    """The patches, row by row: at even positions on each axis, as many as fit into `side`."""

    def along(length: int) -> list[slice]:
        count = max(1, min(side, length) // patch)
        room = max(length - patch, 0)
        starts = [round(room * number / max(count - 1, 1)) // 2 * 2 for number in range(count)]
        return [slice(start, start + patch) for start in starts]

    return [[(rows, columns) for columns in along(width)] for rows in along(height)]


def _joined(x: Tensor, places: list[list[tuple[slice, slice]]]) -> Tensor:
    """The patches of (1,C,H,W) at these places, side by side in one photo."""
    rows = [torch.cat([x[:, :, *place] for place in row], dim=3) for row in places]
    return torch.cat(rows, dim=2)


def _one_by_one(x: Tensor, places: list[list[tuple[slice, slice]]]) -> Tensor:
    """The patches of (1,C,H,W) at these places, one after the other."""
    return torch.cat([x[:, :, *place] for row in places for place in row])


def statistics_engine(network: Network, engine: str) -> str:
    """The engine that can use statistics of the whole photo. Raises ValueError if the network has none."""
    if not attentions(network):
        raise ValueError(
            f"{type(network).__name__} has no attention across channels, so its tiles need no global "
            "statistics: leave out this option"
        )
    if engine not in ("auto", "torch"):
        raise ValueError(f"global statistics are computed by torch only: leave out engine {engine}")
    return "torch"
