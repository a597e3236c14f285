"""U-Net with a convolutional block attention module after every stage.

S. Woo, J. Park, J.-Y. Lee, I. S. Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018: channel
attention (from the mean and maximum of each channel), then spatial attention (from the mean and maximum over
channels).

Legend: B samples, H height, W width, C channels, r reduction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from restora.networks.layers.blocks import conv1x1
from restora.networks.unet import DoubleConv, Norm, UNet, unet_arguments
from restora.registry import register


class CBAM(nn.Module):
    """(B,C,H,W) -> same, scaled by channel and by position (equations 1 to 3)."""

    def __init__(self, channels: int, *, reduction: int, window: int = 7) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(conv1x1(channels, hidden), nn.ReLU(), conv1x1(hidden, channels))
        self.spatial = nn.Conv2d(2, 1, window, padding=window // 2)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)  # (B,C,1,1)
        x = x * torch.sigmoid(self.mlp(mean) + self.mlp(largest))
        where = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)  # (B,2,H,W)
        return x * torch.sigmoid(self.spatial(where))


@register("network", "cbam_unet")
class CBAMUNet(UNet):
    """U-Net whose stages end with a CBAM; arguments as `UNet`, plus the channel attention's reduction."""

    whole_photo = True

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
        reduction: int = 16,
    ) -> None:
        if reduction < 1:
            raise ValueError(f"network.reduction must be 1 or more, got {reduction}")
        self.reduction = reduction  # set before the base class makes the stages
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            condition_channels=condition_channels,
            channels=channels,
            norm=norm,
            residual=residual,
            side_outputs=side_outputs,
        )

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        found = unet_arguments(state, stage="0.")
        hidden = state.get("encoder.0.1.mlp.0.weight")
        if found is None or hidden is None:
            return None
        return found | {"reduction": max(found["channels"][0] // hidden.shape[0], 1)}

    def make_stage(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Sequential(
            DoubleConv(in_channels, out_channels, norm=self.norm),
            CBAM(out_channels, reduction=self.reduction),
        )
