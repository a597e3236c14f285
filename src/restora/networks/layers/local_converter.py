"""Test-time local converter.

It replaces statistics over a whole photo by statistics over windows of about the training patch's size.

X. Chu, L. Chen, C. Chen, X. Lu, "Improving Image Restoration by Revisiting Global Information Aggregation",
ECCV 2022. A network trained on patches is trained with means over patches; means over a whole photo have
another distribution. A converted network computes each such statistic over a window of 1.5 times the training
patch around each position. Parameters do not change, and for a photo no larger than the window the output is
that of the original network.

Legend: B samples, H height, W width, C channels, k window.
"""

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network

WINDOW_TO_PATCH = 1.5

N = TypeVar("N", bound=Network)


class GlobalStatistic(nn.Module):
    """Base of modules that compute a statistic over all positions of features (B,H,W,C).

    It is over all positions if `window` is None, otherwise over windows of `window` = (height, width)
    positions. `convert` sets it.
    """

    window: tuple[int, int] | None = None

    def extra_repr(self) -> str:
        return f"window={self.window}"


class GlobalMean(GlobalStatistic):
    """Mean over the positions: (B,H,W,C) -> (B,1,1,C), or (B,H,W,C) after conversion."""

    def is_of_all(self, x_BHWC: Tensor) -> bool:
        """Whether all positions are in the window."""
        height, width = x_BHWC.shape[1:3]
        return self.window is None or (self.window[0] >= height and self.window[1] >= width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        height, width = x_BHWC.shape[1:3]
        if self.window is None or self.is_of_all(x_BHWC):
            # a scaled sum: the backward pass of `mean` would write the whole gradient once more
            total = x_BHWC.sum((1, 2), keepdim=True, dtype=torch.float32)
            return (total * (1.0 / (height * width))).to(x_BHWC.dtype)
        return local_mean(x_BHWC, self.window)


def local_mean(x_BHWC: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean over the window around each position: (B,H,W,C) -> (B,H,W,C).

    Windows at the border are moved inside the photo, as in the authors' code. Sums are differences of
    cumulative sums in float32, one axis after the other, so the cost does not depend on the window. Both axes
    are summed as the second axis: over the first, with a stride of a row, torch takes ten times as long.
    """
    y = _sliding_mean(x_BHWC.float(), window[1])
    return _sliding_mean(y.transpose(1, 2), window[0]).transpose(1, 2).to(x_BHWC.dtype).contiguous()


def _sliding_mean(x: Tensor, window: int) -> Tensor:
    """The mean over `window` positions along the second spatial axis: (B,H,W,C) -> same, contiguous."""
    size = x.shape[2]
    k = min(window, size)
    running = F.pad(x.contiguous().cumsum(2), (0, 0, 1, 0))  # size + 1, from zero
    inside = (running[:, :, k:] - running[:, :, : size + 1 - k]) / k  # size + 1 - k
    start = (torch.arange(size, device=x.device) - (k - 1) // 2).clamp(0, size - k)
    return inside.index_select(2, start)  # size


def convert(network: N, *, train_size: tuple[int, int]) -> N:
    """A copy of `network` with local instead of global statistics.

    Windows have 1.5 times the size of a training patch.

    `train_size` is the (height, width) of the training patches, in pixels of the network's input.
    """
    shapes = _statistic_shapes(network, train_size)
    if not shapes:
        raise ValueError(
            f"{type(network).__name__} gathers nothing over the whole photo, so there is nothing to convert: "
            "set local_converter=null"
        )
    local = copy.deepcopy(network)
    for name, (height, width) in shapes.items():
        statistic = local.get_submodule(name)
        assert isinstance(statistic, GlobalStatistic)
        statistic.window = (int(WINDOW_TO_PATCH * height), int(WINDOW_TO_PATCH * width))
    return local


def _statistic_shapes(network: Network, train_size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Height and width of the input of each global statistic for a training patch, found without computing
    values.
    """
    height, width = train_size
    if min(height, width) < 1:
        raise ValueError(f"train_size must be the (height, width) of a training patch, got {train_size}")
    ghost = copy.deepcopy(network).to("meta")
    shapes: dict[str, tuple[int, int]] = {}

    def record(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            height, width = inputs[0].shape[1:3]
            shapes[name] = (height, width)

        return hook

    for name, module in ghost.named_modules():
        if isinstance(module, GlobalStatistic):
            module.register_forward_pre_hook(record(name))
    dtype = next(ghost.parameters()).dtype
    x = torch.empty(1, network.in_channels, height, width, device="meta", dtype=dtype)
    condition = None
    if network.condition_channels:
        condition = torch.empty(1, network.condition_channels, height, width, device="meta", dtype=dtype)
    with torch.no_grad():
        ghost(x, condition)
    return shapes
