"""MWCNN: a U-Net that down- and upsamples by the lossless Haar wavelet transform.

P. Liu, H. Zhang, K. Zhang, L. Lin, W. Zuo, "Multi-level Wavelet-CNN for Image Restoration", CVPR Workshops
2018. Parameter names are those of the authors' PyTorch code (`head.0.body.0.weight`, `d_l2.0.body.0.weight`,
...), whose blocks have no batch norm; the paper has batch norm in all layers but the first and the last
(`batch_norm=True`).

Legend: B samples, H height, W width, C channels of the photo, F features.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import conv3x3, count_children, he_initialise
from restora.networks.layers.channels_last import convolve, to_channels_first, to_channels_last
from restora.registry import register


def haar(x_BHWC: Tensor) -> Tensor:
    """(B,H,W,F) -> (B,H/2,W/2,4F).

    An orthogonal transform to mean, horizontal, vertical and diagonal differences, rows first, then columns,
    in one pass over the data each.
    """
    b, h, w, f = x_BHWC.shape
    top, bottom = x_BHWC.view(b, h // 2, 2, w, f).unbind(2)  # (B,H/2,W,F) each
    mean = torch.lerp(top, bottom, 0.5)
    half = bottom - mean
    bands = []
    for part in (mean, half):
        left, right = part.view(b, h // 2, w // 2, 2, f).unbind(3)  # (B,H/2,W/2,F) each
        bands += [left + right, right - left]
    return torch.cat(bands, dim=-1)


def inverse_haar(x_BHWC: Tensor) -> Tensor:
    """(B,H,W,4F) -> (B,2H,2W,F)."""
    mean, horizontal, vertical, diagonal = x_BHWC.chunk(4, dim=-1)
    rows = []
    for along, across in ((mean, horizontal), (vertical, diagonal)):
        right = torch.lerp(along, across, 0.5)
        rows.append(torch.stack((along - right, right), dim=3).flatten(2, 3))  # (B,H,2W,F)
    return torch.stack((rows[0] - rows[1], rows[0] + rows[1]), dim=2).flatten(1, 2)


class Block(nn.Module):
    """Convolution, optional batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3x3(in_channels, out_channels)]
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        self.body = nn.Sequential(*layers, nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


@register("network", "mwcnn")
class MWCNN(Network):
    """The whole network: three levels of wavelets, `blocks` convolutions on each, residual output."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "super_resolution", "jpeg")
    size_multiple = 8

    def __init__(
        self,
        *,
        in_channels: int = 1,
        channels: Sequence[int] = (160, 256, 256),
        blocks: int = 3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if len(channels) != 3:
            raise ValueError(f"MWCNN has three levels: give three network.channels, got {[*channels]}")
        self.in_channels = self.out_channels = in_channels
        c1, c2, c3 = channels

        def stage(*widths: int) -> nn.Sequential:
            pairs = pairwise(widths)
            return nn.Sequential(*(Block(before, after, batch_norm=batch_norm) for before, after in pairs))

        self.head = nn.Sequential(Block(4 * in_channels, c1, batch_norm=False))
        self.d_l1 = stage(*(c1,) * (blocks + 1))
        self.d_l2 = stage(4 * c1, *(c2,) * (blocks + 1))
        self.pro_l3 = stage(4 * c2, *(c3,) * (2 * blocks + 1), 4 * c2)
        self.i_l2 = stage(*(c2,) * (blocks + 1), 4 * c1)
        self.i_l1 = stage(*(c1,) * (blocks + 1))
        self.tail = nn.Sequential(conv3x3(c1, 4 * in_channels))
        he_initialise(self)
        with torch.no_grad():
            for last in (self.i_l2[-1], self.pro_l3[-1], self.tail):
                for conv in last.modules():
                    if isinstance(conv, nn.Conv2d):
                        conv.weight.mul_(0.1)  # the branch added to a skip starts small

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if not {"head.0.body.0.weight", "tail.0.weight", "d_l2.0.body.0.weight"} <= state.keys():
            return None
        stages = ("d_l1", "d_l2", "pro_l3")
        return {
            "in_channels": state["tail.0.weight"].shape[0] // 4,
            "channels": [state[f"{stage}.0.body.0.weight"].shape[0] for stage in stages],
            "blocks": count_children(state, "d_l1"),
            "batch_norm": any(name.startswith("d_l1.") and "running_mean" in name for name in state),
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        x_BHWC = to_channels_last(x)
        fine = convolve(self.d_l1, convolve(self.head, haar(x_BHWC)))  # (B,H/2,W/2,C1)
        middle = convolve(self.d_l2, haar(fine))  # (B,H/4,W/4,C2)
        y = convolve(self.pro_l3, haar(middle))  # (B,H/8,W/8,4*C2)
        y = convolve(self.i_l2, inverse_haar(y) + middle)  # (B,H/4,W/4,4*C1)
        y = convolve(self.i_l1, inverse_haar(y) + fine)  # (B,H/2,W/2,C1)
        y = inverse_haar(convolve(self.tail, y))  # (B,H,W,C)
        return to_channels_first(y) + x
