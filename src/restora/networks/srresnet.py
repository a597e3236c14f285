"""SRResNet, SRGAN's generator, and MSRResNet, without batch norm and with a bilinear skip.

C. Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR
2017 (SRResNet); X. Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV
Workshops 2018 (its modified baseline). MSRResNet has the parameter names of KAIR's checkpoints
(`recon_trunk.0.conv1.weight`, ...). SRGAN's authors published no weights; SRResNet's names are ours.

Scale 1 leaves the upsampling out: a generator for denoising, deblurring or colourisation.

Legend: B samples, C channels of the photo, F features, H height, W width, s scale.
"""

import re
from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from restora.networks.base import Network
from restora.networks.layers.blocks import (
    conv3x3,
    count_children,
    he_initialise,
    upsampler_scale,
    upsampling_steps,
)
from restora.registry import register

_TASKS = ("super_resolution", "denoise", "deblur", "jpeg", "inpaint", "colourise")


class _PlainResidual(nn.Module):
    """x + conv2(relu(conv1(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


@register("network", "msrresnet")
class MSRResNet(Network):
    """restored = bilinear upsampling of x + trunk(x). KAIR's MSRResNet1 (BasicSR's MSRResNet).

    Scales are 1, 2, 3 and 4. Weights start at a tenth of He's rule as in the authors' code, so the first
    output is nearly the upsampled photo.
    """

    tasks: ClassVar[tuple[str, ...]] = _TASKS

    def __init__(self, *, scale: int = 4, in_channels: int = 3, channels: int = 64, blocks: int = 16) -> None:
        super().__init__()
        if scale not in (1, 2, 3, 4):
            raise ValueError(f"network.scale of MSRResNet must be 1, 2, 3 or 4, got {scale}")
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        self.conv_first = conv3x3(in_channels, channels)
        self.recon_trunk = nn.Sequential(*(_PlainResidual(channels) for _ in range(blocks)))
        steps = upsampling_steps(scale)
        self.upconv1 = conv3x3(channels, channels * steps[0] ** 2) if steps else None
        self.upconv2 = conv3x3(channels, channels * 4) if len(steps) == 2 else None
        self.HRconv = conv3x3(channels, channels)
        self.conv_last = conv3x3(channels, in_channels)
        he_initialise(self, scale=0.1)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        f = F.leaky_relu(self.conv_first(x), 0.1, inplace=True)  # (B,F,H,W)
        f = self.recon_trunk(f)
        for upconv, step in zip((self.upconv1, self.upconv2), upsampling_steps(self.scale), strict=False):
            assert upconv is not None
            f = F.leaky_relu(F.pixel_shuffle(upconv(f), step), 0.1, inplace=True)
        y: Tensor = self.conv_last(F.leaky_relu(self.HRconv(f), 0.1, inplace=True))  # (B,C,sH,sW)
        if self.scale == 1:
            return x + y
        return F.interpolate(x, scale_factor=float(self.scale), mode="bilinear", align_corners=False) + y

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renames BasicSR's parameters of the same network to KAIR's names."""
        return {
            re.sub(r"^body\.", "recon_trunk.", name).replace("conv_hr.", "HRconv."): value
            for name, value in state.items()
        }

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        trunk = "body" if "conv_hr.weight" in state else "recon_trunk"
        if "conv_first.weight" not in state or f"{trunk}.0.conv1.weight" not in state:
            return None
        channels, in_channels = state["conv_first.weight"].shape[:2]
        scale = 1
        if "upconv1.weight" in state:
            scale = {4: 4 if "upconv2.weight" in state else 2, 9: 3}[
                state["upconv1.weight"].shape[0] // channels
            ]
        blocks = count_children(state, trunk)
        return {"scale": scale, "in_channels": in_channels, "channels": channels, "blocks": blocks}


class _NormedResidual(nn.Module):
    """x + norm(conv(prelu(norm(conv(x))))), the norms optional; one slope for all channels."""

    def __init__(self, channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        bias = not batch_norm  # a batch norm cancels it
        self.conv1 = conv3x3(channels, channels, bias=bias)
        self.norm1 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
        self.act = nn.PReLU()
        self.conv2 = conv3x3(channels, channels, bias=bias)
        self.norm2 = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        return x + self.norm2(self.conv2(y))


@register("network", "srresnet")
class SRResNet(Network):
    """SRGAN's generator (figure 4).

    k9n64, 16 blocks inside a long skip, a pixel shuffle per factor of two, k9.

    `batch_norm=False` follows later work (EDSR, ESRGAN): it removes the artefacts of batch statistics on
    photos that differ from the training photos.
    """

    tasks: ClassVar[tuple[str, ...]] = _TASKS

    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        channels: int = 64,
        blocks: int = 16,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.in_channels = self.out_channels = in_channels
        self.head = nn.Sequential(nn.Conv2d(in_channels, channels, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(*(_NormedResidual(channels, batch_norm=batch_norm) for _ in range(blocks)))
        self.body_end = nn.Sequential(
            conv3x3(channels, channels, bias=not batch_norm),
            nn.BatchNorm2d(channels) if batch_norm else nn.Identity(),
        )
        upsampling: list[nn.Module] = []
        for step in upsampling_steps(scale):
            upsampling += [conv3x3(channels, step * step * channels), nn.PixelShuffle(step), nn.PReLU()]
        self.upsampling = nn.Sequential(*upsampling)
        self.tail = nn.Conv2d(channels, in_channels, 9, padding=4)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int | bool] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        if not {"head.0.weight", "body.0.act.weight", "body_end.0.weight", "tail.weight"} <= state.keys():
            return None
        channels, in_channels = state["head.0.weight"].shape[:2]
        return {
            "scale": upsampler_scale(state, "upsampling", channels),
            "in_channels": in_channels,
            "channels": channels,
            "blocks": count_children(state, "body"),
            "batch_norm": "body.0.norm1.running_mean" in state,
        }

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:  # noqa: ARG002
        shallow = self.head(x)  # (B,F,H,W)
        deep = self.body_end(self.body(shallow)) + shallow
        return self.tail(self.upsampling(deep))  # (B,C,sH,sW)
