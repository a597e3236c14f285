"""The U-Net of N2V2, for blind-spot training without checkerboard artefacts.

E. Hoeck, T.-O. Buchholz, A. Brachmann, F. Jug, A. Freytag, "N2V2: Fixing Noise2Void Checkerboard Artifacts
with Modified Sampling Strategies and a Tweaked Network Architecture", ECCV Workshops 2022: Noise2Void's U-Net
without its residual and without the skip at full size, with max-blur pooling (R. Zhang, "Making Convolutional
Networks Shift-Invariant Again", ICML 2019). Blind pixels are replaced by medians
(`objective.noise2void.replacement=median`).

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.networks.meta import in_memory
from restora.networks.unet import Norm, UNet, lacks_top_skip, unet_arguments
from restora.registry import register


@register("network", "n2v2_unet")
class N2V2UNet(UNet):
    """Encoder and decoder of len(channels) levels; `norm` is "batch" or "none"."""

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)
    top_skip: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (96, 192, 384),
        norm: Norm = "batch",
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, channels=channels, norm=norm, residual=False
        )
        self.register_buffer("blur", _binomial(), persistent=False)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        known = unet_arguments(state, stage="") if lacks_top_skip(state) else None
        return known and {name: known[name] for name in ("in_channels", "out_channels", "channels", "norm")}

    def pool(self, x: Tensor) -> Tensor:
        """Max-blur pooling: dense 2x2 maxima, blurred and subsampled: (B,C,H,W) -> (B,C,H/2,W/2)."""
        largest = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
        kernel = self.get_buffer("blur").to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(largest, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=x.shape[1])


@in_memory
def _binomial() -> Tensor:
    """(1,1,3,3), the blur of the pooling."""
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.outer(taps, taps)[None, None]
