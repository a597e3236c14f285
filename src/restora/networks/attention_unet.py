"""Attention U-Net: attention gates weight each skip by position.

O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018. Each skip is
multiplied at each position by an additive attention gate, computed from the skip and the features of the
level below. The latter are upsampled before the gate, as in the common implementations.

Legend: B samples, H height, W width, C channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restora.networks.layers.blocks import PointwiseConv
from restora.networks.unet import UNet, unet_arguments
from restora.registry import register


class AttentionGate(nn.Module):
    """skip * sigmoid(psi(relu(W_x skip + W_g gating))): (B,C,H,W) and (B,C,H,W) -> (B,C,H,W), equation 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.W_x = PointwiseConv(channels, hidden, bias=False)  # W_g has the bias
        self.W_g = PointwiseConv(channels, hidden)
        self.psi = PointwiseConv(hidden, 1)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        attention = self.psi(torch.relu(self.W_x(skip) + self.W_g(gating)))  # (B,1,H,W)
        return skip * torch.sigmoid(attention)


@register("network", "attention_unet")
class AttentionUNet(UNet):
    """U-Net with an attention gate on every skip; arguments as `UNet`."""

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        return unet_arguments(state, stage="") if "skips.0.W_x.weight" in state else None

    def make_skip(self, channels: int) -> nn.Module:
        return AttentionGate(channels)
