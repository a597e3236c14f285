"""Losses on features instead of pixels: of VGG-19, of LPIPS, or of the discriminator itself.

The configuration chooses one. VGG and LPIPS need the weights of an ImageNet classifier and raise an error at
construction without them; `feature_matching` needs none. There is no automatic fallback between them.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.losses.backbones import Backbone
from restora.registry import register


@register("loss", "vgg")
class VGGLoss(nn.Module):
    """Mean absolute or squared difference of VGG-19 features, summed over layers with their weights.

    Johnson, Alahi, Fei-Fei, ECCV 2016. ESRGAN (ECCV Workshops 2018, section 3.3): "conv5_4" before the
    activation, L1. Real-ESRGAN (2021): conv1_2 0.1, conv2_2 0.1, conv3_4 1, conv4_4 1, conv5_4 1. SRGAN:
    "relu5_4", squared.
    """

    def __init__(
        self,
        *,
        layers: Mapping[str, float],
        criterion: Literal["l1", "mse"] = "l1",
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if criterion not in ("l1", "mse"):
            raise ValueError(f'criterion is "l1" or "mse", got "{criterion}"')
        self.layers = dict(layers)
        self.distance = F.l1_loss if criterion == "l1" else F.mse_loss
        self.backbone = Backbone(name="vgg19", layers=tuple(self.layers), weights=weights)

    @property
    def minimum_size(self) -> int:
        """The smallest H and W that the backbone accepts."""
        return self.backbone.minimum_size

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Photos (B,1|3,H,W) on the [0,1] scale -> a scalar; gradients flow only to `restored`."""
        with torch.no_grad():
            wanted = self.backbone(clean)
        got = self.backbone(restored)
        parts = [w * self.distance(got[layer], wanted[layer]) for layer, w in self.layers.items()]
        return torch.stack(parts).sum()


_LPIPS_NETS = {
    "vgg": ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "alex": ("alexnet", ("relu1", "relu2", "relu3", "relu4", "relu5")),
}


@register("loss", "lpips")
class LPIPSLoss(nn.Module):
    """Learned perceptual distance: squared differences of unit-length features, weighted per channel.

    Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", CVPR 2018. The channel weights are the authors' (version 0.1), as shipped with torchmetrics;
    `weights` is the file of the backbone's weights.
    """

    def __init__(self, *, net: Literal["vgg", "alex"] = "vgg", weights: str | Path | None = None) -> None:
        super().__init__()
        if net not in _LPIPS_NETS:
            raise ValueError(f'net is "vgg" or "alex", got "{net}"')
        name, layers = _LPIPS_NETS[net]
        # the authors' constants for photos on [-1,1], converted to [0,1]
        mean = tuple((1 + shift) / 2 for shift in (-0.030, -0.088, -0.188))
        std = tuple(scale / 2 for scale in (0.458, 0.448, 0.450))
        self.backbone = Backbone(name=name, layers=layers, weights=weights, mean=mean, std=std)
        for level, channel_weights in enumerate(_channel_weights(net)):
            self.register_buffer(f"channels_{level}", channel_weights, persistent=False)

    @property
    def minimum_size(self) -> int:
        """The smallest H and W that the backbone accepts."""
        return self.backbone.minimum_size

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Photos (B,1|3,H,W) on the [0,1] scale -> a scalar, the mean over the photos."""
        with torch.no_grad():
            wanted = self.backbone(clean)
        got = self.backbone(restored)
        total = clean.new_zeros(clean.shape[0])  # (B,)
        for level, layer in enumerate(self.backbone.layers):
            difference = (_unit_length(got[layer]) - _unit_length(wanted[layer])).square()  # (B,C,h,w)
            weighed = difference.mean((2, 3)) * self.get_buffer(f"channels_{level}")
            total = total + weighed.sum(1)
        return total.mean()


def _unit_length(features: Tensor) -> Tensor:
    """(B,C,H,W), the channel vector at each position normalised to length 1."""
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _channel_weights(net: str) -> list[Tensor]:
    """The five (C,) weights of LPIPS v0.1."""
    import torchmetrics.functional.image as package

    path = Path(package.__file__).parent / "lpips_models" / f"{net}.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{level}.model.1.weight"].flatten() for level in range(5)]


def feature_matching(restored: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the discriminator's features, averaged over its layers.

    Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018,
    equation 4, divided by the number of layers. Gradients flow only to `restored`.
    """
    if not restored or len(restored) != len(clean):
        raise ValueError(
            f"features come in pairs, got {len(restored)} of restored and {len(clean)} of clean photos"
        )
    parts = [
        F.l1_loss(got.float(), wanted.detach().float()) for got, wanted in zip(restored, clean, strict=True)
    ]
    return torch.stack(parts).mean()
