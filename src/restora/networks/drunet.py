"""DRUNet: a U-Net of residual blocks without biases, conditioned on the noise level.

K. Zhang, Y. Li, W. Zuo, L. Zhang, L. Van Gool, R. Timofte, "Plug-and-Play Image Restoration with Deep
Denoiser Prior", TPAMI 2021. Parameter names are those of KAIR's and DPIR's checkpoints (`m_head.weight`,
`m_down1.0.res.0.weight`, ...). Without biases the network scales with its input: f(a x, a sigma) = a f(x,
sigma).

Legend: B samples, H height, W width, C channels, K condition channels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from restora.networks.base import Network, Padding
from restora.networks.layers.blocks import conv3x3, count_children
from restora.registry import register

_RESIDUAL = "residual_output"
"""The name of a buffer that only weights of residual networks have."""
_OF_OTHERS = {"fill_levels", "scales.of_photo.0.weight"}
"""What the weights of FillingDRUNet and BlindDRUNet have in addition."""


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), (B,C,H,W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            conv3x3(channels, channels, bias=False),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.res(x)
        return x + residual


@register("network", "drunet")
class DRUNet(Network):
    """The whole network: three scales down by strided convolutions, three up by transposed ones, skips added.

    The condition is the noise-level map, sigma / 255 at every pixel (for JPEG: the quality). Photos whose
    sides are not multiples of 8 are padded by `padding`: "replicate" as in the authors' test code, which
    extends the border's noise to streaks; "reflect" does not. `residual`: the output is added to the input,
    unlike in the authors' network."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise", "jpeg")
    size_multiple = 8

    def __init__(
        self,
        *,
        in_channels: int = 3,
        condition_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 4,
        padding: Padding = "replicate",
        residual: bool = False,
    ) -> None:
        super().__init__()
        if padding not in ("replicate", "reflect"):
            raise ValueError(f'network.padding must be "replicate" or "reflect", got {padding!r}')
        self.padding, self.residual = padding, residual
        if residual:
            self.register_buffer(_RESIDUAL, torch.ones(()))  # distinguishes these weights
        if len(channels) != 4:
            raise ValueError(f"DRUNet has four scales: give four network.channels, got {[*channels]}")
        self.in_channels = self.out_channels = in_channels
        self.condition_channels = condition_channels
        c1, c2, c3, c4 = channels

        def residual_blocks(width: int) -> list[nn.Module]:
            return [ResidualBlock(width) for _ in range(blocks)]

        def down(width: int, wider: int) -> nn.Sequential:
            return nn.Sequential(*residual_blocks(width), nn.Conv2d(width, wider, 2, stride=2, bias=False))

        def up(wider: int, width: int) -> nn.Sequential:
            return nn.Sequential(
                nn.ConvTranspose2d(wider, width, 2, stride=2, bias=False), *residual_blocks(width)
            )

        self.m_head = conv3x3(in_channels + condition_channels, c1, bias=False)
        self.m_down1, self.m_down2, self.m_down3 = down(c1, c2), down(c2, c3), down(c3, c4)
        self.m_body = nn.Sequential(*residual_blocks(c4))
        self.m_up3, self.m_up2, self.m_up1 = up(c4, c3), up(c3, c2), up(c2, c1)
        self.m_tail = conv3x3(c1, in_channels, bias=False)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x1 = self.m_head(x if condition is None else torch.cat((x, condition), dim=1))  # (B,C1,H,W)
        x2 = self.m_down1(x1)  # (B,C2,H/2,W/2)
        x3 = self.m_down2(x2)  # (B,C3,H/4,W/4)
        x4 = self.m_down3(x3)  # (B,C4,H/8,W/8)
        y = self.m_up3(self.m_body(x4) + x4)
        y = self.m_up2(y + x3)
        y = self.m_up1(y + x2)
        restored: Tensor = self.m_tail(y + x1)
        return x + restored if self.residual else restored

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | list[int] | bool] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        own = "m_head.weight" in state and "m_down1.0.res.0.weight" in state
        if not own or _OF_OTHERS & state.keys():
            return None
        widths = [state[f"m_down{level}.0.res.0.weight"].shape[0] for level in (1, 2, 3)]
        photo = state["m_tail.weight"].shape[0]
        found: dict[str, int | list[int] | bool] = {
            "in_channels": photo,
            "condition_channels": state["m_head.weight"].shape[1] - photo,
            "channels": [*widths, state["m_body.0.res.0.weight"].shape[0]],
            "blocks": count_children(state, "m_body"),
        }
        if _RESIDUAL in state:
            found["residual"] = True
        return found
