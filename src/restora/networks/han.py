"""HAN: RCAN with attention over its groups, and joint attention over channels and positions.

B. Niu, W. Wen, W. Ren, X. Zhang, L. Yang, S. Wang, K. Zhang, X. Cao, H. Shen, "Single Image Super-Resolution
via a Holistic Attention Network", ECCV 2020. Parameter names are those of the authors' checkpoints: RCAN's,
`la.gamma`, `csa.conv.weight`, `last_conv.weight`, `last.weight`. The authors start from a trained RCAN ×2.

Legend: B samples, N groups of blocks and the convolution after them, F features, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.layers.blocks import conv3x3
from restora.networks.rcan import RCAN
from restora.registry import register


class _LayerAttention(nn.Module):
    """x + gamma * attention over layers, larger for less similar layers; section 3.2.

    The similarity is a sum over the whole photo.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,N,F,H,W) -> (B,NF,H,W)."""
        flat = x.flatten(2)  # (B,N,FHW)
        energy = flat @ flat.transpose(1, 2)  # (B,N,N)
        attention = (energy.amax(dim=-1, keepdim=True) - energy).softmax(dim=-1)
        return (self.gamma * (attention @ flat) + flat).reshape(x.shape).flatten(1, 2)


class _Convolution3d(nn.Module):
    """3×3×3 over features, rows and columns: (B,F,H,W) -> (B,F,H,W).

    The weight has four dimensions here, as channels_last requires, and five in files.
    """

    def __init__(self) -> None:
        super().__init__()
        made = nn.Conv3d(1, 1, kernel_size=3)
        self.weight, self.bias = nn.Parameter(made.weight.detach()[0]), made.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(x.unsqueeze(1), self.weight.unsqueeze(0), self.bias, padding=1).squeeze(1)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination[f"{prefix}weight"].unsqueeze(0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and weight.ndim == 5:
            state_dict[f"{prefix}weight"] = weight.squeeze(0)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class _ChannelSpatialAttention(nn.Module):
    """x + gamma * sigmoid(conv(x)) * x, the convolution over channels, rows and columns; section 3.3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _Convolution3d()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.gamma * torch.sigmoid(self.conv(x))) + x


@register("network", "han")
class HAN(RCAN):
    """RCAN's head, body and tail, both attentions before the tail. The paper's size is RCAN's."""

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        channels: int = 64,
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        rgb_range: float = 255.0,
    ) -> None:
        super().__init__(
            scale=scale,
            in_channels=in_channels,
            channels=channels,
            groups=groups,
            blocks=blocks,
            reduction=reduction,
            rgb_range=rgb_range,
        )
        self.csa = _ChannelSpatialAttention()
        self.la = _LayerAttention()
        self.last_conv = conv3x3(channels * (groups + 1), channels)
        self.last = conv3x3(channels * 2, channels)

    def deep(self, shallow: Tensor) -> Tensor:
        layers, y = [], shallow
        for part in self.body:
            y = part(y)
            layers.append(y)
        weighed = self.last_conv(self.la(torch.stack(layers[::-1], dim=1)))  # the last layer first
        deep: Tensor = self.last(torch.cat([self.csa(y), weighed], dim=1))
        return deep

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        return cls._arguments(state) if "csa.gamma" in state else None
