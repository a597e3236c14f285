"""U-Net with additions for restoration: residual output, conditions, side outputs.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
2015: stages of two 3x3 convolutions, max pooling, 2x2 transposed convolutions, concatenated skips, a 1x1
output. Convolutions are padded here, so that the output has the size of the input. Side outputs are for the
deep supervision of Lee et al., AISTATS 2015.

Variants override `make_stage` (the layers of one level), `make_skip` (the processing of a skip) and `pool`; a
variant without a skip at full size sets `top_skip`.

Legend: B samples, H height, W width, C channels of a level, K condition channels, L levels.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import PointwiseConv, activation, conv3x3, count_children, he_initialise
from restora.registry import register

Norm = Literal["none", "batch"]


class DoubleConv(nn.Sequential):
    """(B,C,H,W) -> (B,C',H,W): two 3x3 convolutions, each with its norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(conv3x3(channels, out_channels, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(activation("relu"))
        super().__init__(*layers)


class PlainSkip(nn.Module):
    """The unchanged skip."""

    def forward(self, skip: Tensor, upsampled: Tensor) -> Tensor:  # noqa: ARG002
        return skip


@register("network", "unet")
class UNet(Network):
    """Encoder and decoder of L = len(channels) levels.

    With `residual` the network predicts a residual that is added to the input. The condition (a noise-level
    map, a mask) is concatenated with the photo. `side_outputs` is the number of further outputs at half,
    quarter, ... size, which only `restore_scales` computes. `norm` is "batch" (as in most implementations of
    the paper) or "none".
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "deblur", "jpeg", "inpaint", "colourise", "derain")
    top_skip: ClassVar[bool] = True
    """Whether there is a skip at full size."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        condition_channels: int = 0,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        norm: Norm = "none",
        residual: bool = True,
        side_outputs: int = 0,
    ) -> None:
        super().__init__()
        _check(in_channels, out_channels, channels, norm, residual, side_outputs)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.condition_channels = condition_channels
        self.size_multiple = 2 ** (len(channels) - 1)
        self.norm, self.residual = norm, residual
        pairs = list(pairwise(channels))  # (fine, coarse) of neighbouring levels
        self.encoder = nn.ModuleList([self.make_stage(in_channels + condition_channels, channels[0])])
        self.encoder.extend(self.make_stage(fine, coarse) for fine, coarse in pairs)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs)
        )
        self.skips = nn.ModuleList(self.make_skip(fine) for fine, _ in reversed(pairs))
        self.decoder = nn.ModuleList(
            self.make_stage(2 * fine if level or self.top_skip else fine, fine)
            for level, (fine, _) in reversed(list(enumerate(pairs)))
        )
        self.head = PointwiseConv(channels[0], out_channels)
        self.side_heads = nn.ModuleList(
            PointwiseConv(c, out_channels) for c in channels[1 : side_outputs + 1]
        )
        he_initialise(self)
        if residual:
            with torch.no_grad():
                for head in (self.head, *self.side_heads):
                    head.weight.mul_(0.1)  # the first output is nearly the input

    @property
    def side_outputs(self) -> int:
        """How many sizes `restore_scales` returns besides the full one."""
        return len(self.side_heads)

    def make_stage(self, in_channels: int, out_channels: int) -> nn.Module:
        """The layers of one level: (B,in_channels,H,W) -> (B,out_channels,H,W)."""
        return DoubleConv(in_channels, out_channels, norm=self.norm)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None.

        Whether the output is added to the photo cannot be inferred: `residual` is left at its default.
        """
        if "skips.0.W_x.weight" in state or "encoder.0.1.mlp.0.weight" in state or lacks_top_skip(state):
            return None  # a variant's
        return unet_arguments(state, stage="")

    def make_skip(self, channels: int) -> nn.Module:  # noqa: ARG002
        """Skip and upsampled features, (B,channels,H,W) each -> the skip to concatenate.

        It has the same shape.
        """
        return PlainSkip()

    def pool(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H/2,W/2)."""
        return F.max_pool2d(x, 2)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self._output(self.head, self._features(x, condition)[0], x)

    def restore_scales(self, x: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """Outputs at full, half, quarter ... size: (B,C',H/2^i,W/2^i) for i up to `side_outputs`.

        For training: H and W must be multiples of `size_multiple`.
        """
        self._check(x, condition)
        if x.shape[-2] % self.size_multiple or x.shape[-1] % self.size_multiple:
            raise ValueError(
                f"side outputs need sides that are multiples of {self.size_multiple}, got "
                f"{x.shape[-2]}x{x.shape[-1]}: change data.patch_size"
            )
        features = self._features(x, condition if self.condition_channels else None)
        outputs = []
        for level, head in enumerate((self.head, *self.side_heads)):
            outputs.append(self._output(head, features[level], F.avg_pool2d(x, 2**level) if level else x))
        return outputs

    def _features(self, x: Tensor, condition: Tensor | None) -> list[Tensor]:
        """The decoder's features from the finest level to the coarsest, (B,C_i,H/2^i,W/2^i)."""
        y = x if condition is None else torch.cat((x, condition), dim=1)
        skips = []
        for level, stage in enumerate(self.encoder):
            y = stage(self.pool(y) if level else y)
            skips.append(y)
        features = [skips.pop()]
        for up, gate, stage in zip(self.ups, self.skips, self.decoder, strict=True):
            upsampled = up(features[-1])  # (B,C_i,H/2^i,W/2^i)
            skip = skips.pop()
            if skips or self.top_skip:
                upsampled = torch.cat((gate(skip, upsampled), upsampled), dim=1)
            features.append(stage(upsampled))
        return features[::-1]

    def _output(self, head: nn.Module, features: Tensor, x: Tensor) -> Tensor:
        y: Tensor = head(features)
        return x + y if self.residual else y


def _check(
    in_channels: int, out_channels: int, channels: Sequence[int], norm: str, residual: bool, side_outputs: int
) -> None:
    if norm not in ("none", "batch"):
        raise ValueError(f'network.norm must be "none" or "batch", got "{norm}"')
    if residual and in_channels not in (1, out_channels):
        raise ValueError(
            f"network.residual=true adds {in_channels} channels to {out_channels}: make them equal or set "
            "network.residual=false"
        )
    if not 0 <= side_outputs < len(channels):
        raise ValueError(
            f"network.side_outputs must be from 0 to {len(channels) - 1} for this network, got {side_outputs}"
        )


def lacks_top_skip(state: Mapping[str, Tensor]) -> bool:
    """Whether the last decoder stage of a U-Net only gets the upsampled features, without a skip."""
    last = state.get(f"decoder.{count_children(state, 'decoder') - 1}.0.weight")
    return last is not None and last.shape[1] == last.shape[0]


def unet_arguments(state: Mapping[str, Tensor], *, stage: str) -> dict[str, Any] | None:
    """The constructor's arguments, inferred from a state dict of a U-Net or a variant; else None.

    `stage` is the prefix of a stage's two convolutions, such as "0.".
    """
    first, head = state.get(f"encoder.0.{stage}0.weight"), state.get("head.weight")
    if first is None or head is None or "ups.0.weight" not in state:
        return None
    levels = range(count_children(state, "encoder"))
    out_channels = head.shape[0]
    return {
        # input and output photos have equal channels; the others are the condition
        "in_channels": min(out_channels, first.shape[1]),
        "out_channels": out_channels,
        "condition_channels": max(first.shape[1] - out_channels, 0),
        "channels": [state[f"encoder.{level}.{stage}0.weight"].shape[0] for level in levels],
        "norm": "batch" if f"encoder.0.{stage}1.running_mean" in state else "none",
        "side_outputs": count_children(state, "side_heads"),
    }
