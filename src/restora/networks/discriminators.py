"""Discriminators for the training of GANs.

They return logits, not probabilities, at any height and width above a minimum.

- VGG-style: SRGAN (Ledig et al., CVPR 2017) in ESRGAN's version (Wang et al., ECCV Workshops 2018); one logit
  per photo.
- PatchGAN: pix2pix (Isola et al., CVPR 2017); one logit per overlapping patch.
- U-Net with spectral norm: Real-ESRGAN (Wang et al., ICCV Workshops 2021); one logit per pixel.
- DCGAN: Radford, Metz, Chintala, ICLR 2016; one logit per 64 x 64 patch.

Parameter names are those of BasicSR (`conv0_0`, `linear1`; `conv0` ... `conv9`), of pix2pix's authors
(`model.0`), and of PyTorch's DCGAN example (`main.0`). Checkpoints with torch's old spectral-norm names load
too.

Legend: B samples, C input channels (6 for a photo and its degraded version), H height, W width, F base width.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from restora.networks.layers.blocks import InstanceNorm2d, initialise_as_dcgan
from restora.registry import register

PatchNorm = Literal["batch", "instance", "none"]


class Discriminator(nn.Module, ABC):
    """(B,C,H,W) on the [0,1] scale -> logits, larger for clean photos."""

    in_channels: int
    minimum_size: int = 1
    """The smallest H and W that it accepts."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]

    def features(self, x: Tensor) -> list[Tensor]:
        """The activations of all levels, first to last, and the logits as the last entry."""
        if min(x.shape[-2:]) < self.minimum_size:
            raise ValueError(
                f"{type(self).__name__} needs photos of at least "
                f"{self.minimum_size}x{self.minimum_size}, got "
                f"{x.shape[-2]}x{x.shape[-1]}: raise data.patch_size or take another discriminator"
            )
        return self._features(x)

    @abstractmethod
    def _features(self, x: Tensor) -> list[Tensor]: ...


@register("discriminator", "vgg")
class VGGDiscriminator(Discriminator):
    """Five levels of a 3x3 and a strided 4x4 convolution, then two linear layers: logits (B,1).

    The linear layers expect the 4 x 4 positions of a 128 x 128 patch; other sizes are averaged or repeated to
    4 x 4.
    """

    minimum_size = 32

    def __init__(self, *, in_channels: int = 3, channels: int = 64, hidden: int = 100, grid: int = 4) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = [channels * 2 ** min(level, 3) for level in range(5)]  # F, 2F, 4F, 8F, 8F
        before = in_channels
        for level, width in enumerate(widths):
            self.add_module(f"conv{level}_0", nn.Conv2d(before, width, 3, padding=1, bias=level == 0))
            if level:
                self.add_module(f"bn{level}_0", nn.BatchNorm2d(width))
            self.add_module(f"conv{level}_1", nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{level}_1", nn.BatchNorm2d(width))
            before = width
        self.levels = len(widths)
        self.grid = grid
        self.linear1 = nn.Linear(before * grid * grid, hidden)
        self.linear2 = nn.Linear(hidden, 1)

    def _features(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in range(self.levels):
            for half in (0, 1):
                x = self.get_submodule(f"conv{level}_{half}")(x)
                if level or half:
                    x = self.get_submodule(f"bn{level}_{half}")(x)
                x = F.leaky_relu(x, 0.2)
            features.append(x)  # (B,F_i,H/2^(i+1),W/2^(i+1))
        grid = F.adaptive_avg_pool2d(x, self.grid).flatten(1)
        return [*features, self.linear2(F.leaky_relu(self.linear1(grid), 0.2))]


@register("discriminator", "patch")
class PatchDiscriminator(Discriminator):
    """`levels` strided 4x4 convolutions and two more: logits (B,1,H/2^levels - 2,W/2^levels - 2).

    Three levels have a receptive field of 70 x 70 pixels. Wasserstein losses with gradient penalty need norm
    "none" or "instance": the penalty is per photo, and a batch norm couples photos.
    """

    def __init__(
        self, *, in_channels: int = 3, channels: int = 64, levels: int = 3, norm: PatchNorm = "batch"
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        if norm not in ("batch", "instance", "none"):
            raise ValueError(f'discriminator.norm must be "batch", "instance" or "none", got "{norm}"')
        self.minimum_size = 3 * 2**levels
        widths = [channels * 2 ** min(level, 3) for level in range(levels + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for level, (before, width) in enumerate(pairwise(widths), start=1):
            stride = 2 if level < levels else 1
            layers.append(nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=norm != "batch"))
            if norm != "none":
                layers.append(nn.BatchNorm2d(width) if norm == "batch" else InstanceNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.model = nn.Sequential(*layers)

    def _features(self, x: Tensor) -> list[Tensor]:
        return _activations(self.model, x)


@register("discriminator", "unet_sn")
class UNetDiscriminator(Discriminator):
    """Three strided convolutions down, three upsamplings with added skips: logits (B,1,H,W).

    Spectral norm (Miyato et al., ICLR 2018) on all but the first and the last convolution bounds the
    gradients of a per-pixel discriminator.
    """

    minimum_size = 8

    def __init__(self, *, in_channels: int = 3, channels: int = 64, skip: bool = True) -> None:
        super().__init__()
        self.in_channels = in_channels
        f = channels
        self.skip = skip
        self.conv0 = nn.Conv2d(in_channels, f, 3, padding=1)
        for number, (before, width) in enumerate(((f, 2 * f), (2 * f, 4 * f), (4 * f, 8 * f)), start=1):
            down = nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False)
            self.add_module(f"conv{number}", spectral_norm(down))
        for number, (before, width) in enumerate(
            ((8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f), (f, f)), start=4
        ):
            self.add_module(
                f"conv{number}", spectral_norm(nn.Conv2d(before, width, 3, padding=1, bias=False))
            )
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)
        self.register_load_state_dict_pre_hook(_rename_old_spectral_norm)  # type: ignore[no-untyped-call]

    def _features(self, x: Tensor) -> list[Tensor]:
        def layer(number: int, y: Tensor) -> Tensor:
            return F.leaky_relu(self.get_submodule(f"conv{number}")(y), 0.2)

        features = [F.leaky_relu(self.conv0(x), 0.2)]  # (B,F,H,W)
        for number in (1, 2, 3):
            features.append(layer(number, features[-1]))  # ... (B,8F,H/8,W/8)
        y = features[-1]
        for number, fine in zip((4, 5, 6), features[2::-1], strict=True):
            y = F.interpolate(y, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            y = layer(number, y)
            y = y + fine if self.skip else y
            features.append(y)
        return [*features, self.conv9(layer(8, layer(7, y)))]


@register("discriminator", "dcgan")
class DCGANDiscriminator(Discriminator):
    """`levels` strided 4x4 convolutions and an unstrided one: (B,1,H/2^levels - 3,W/2^levels - 3).

    Four levels give one logit for a photo of 64 x 64.
    """

    def __init__(self, *, in_channels: int = 3, channels: int = 64, levels: int = 4) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.minimum_size = 4 * 2**levels
        widths = [in_channels, *(channels * 2**level for level in range(levels))]
        layers: list[nn.Module] = []
        for level, (before, width) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False))
            if level:  # the paper has no batch norm in the first layer
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(widths[-1], 1, 4, bias=False))
        self.main = nn.Sequential(*layers)
        initialise_as_dcgan(self)

    def _features(self, x: Tensor) -> list[Tensor]:
        return _activations(self.main, x)


def _activations(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The outputs of all activation functions and of the last layer."""
    outputs = []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            outputs.append(x)
    return [*outputs, x]


def _rename_old_spectral_norm(
    module: nn.Module,  # noqa: ARG001
    state: dict[str, Any],
    prefix: str,
    *rest: Any,  # noqa: ARG001
) -> None:
    """`conv1.weight_orig`, `weight_u`, `weight_v` of published checkpoints -> torch's current names, in
    place.
    """
    now = {
        "weight_orig": "parametrizations.weight.original",
        "weight_u": "parametrizations.weight.0._u",
        "weight_v": "parametrizations.weight.0._v",
    }
    for name in [name for name in state if name.startswith(prefix) and name.rpartition(".")[2] in now]:
        path, _, last = name.rpartition(".")
        state[f"{path}.{now[last]}"] = state.pop(name)
