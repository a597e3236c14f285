"""FFDNet: DnCNN on a half-size mosaic (pixel unshuffle) of the photo, conditioned on the noise level.

It is fast, and one network serves all levels.

K. Zhang, W. Zuo, L. Zhang, "FFDNet: Toward a Fast and Flexible Solution for CNN-Based Image Denoising", IEEE
TIP 2018. Parameter names are those of KAIR's checkpoints (`model.0.weight`, ...), whose batch norms are
folded.

Legend: B samples, C channels of the photo, F features, H height, W width.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.networks.dncnn import PlainStack
from restora.networks.layers.blocks import convolution_names
from restora.registry import register


@register("network", "ffdnet")
class FFDNet(PlainStack):
    """restored = shuffle(model(unshuffle(x), noise level)). Grey: depth 15, 64 channels; colour: 12 and 96.

    `condition` is (B,1,H,W), sigma/255 at every pixel. It may vary over the photo; each 2x2 block uses its
    mean.
    """

    tasks: ClassVar[tuple[str, ...]] = ("denoise",)
    padding = "replicate"
    size_multiple = 2
    condition_channels = 1

    def __init__(self, *, in_channels: int = 1, depth: int = 15, channels: int = 64) -> None:
        super().__init__(
            inputs=4 * in_channels + 1,
            outputs=4 * in_channels,
            depth=depth,
            channels=channels,
            batch_norm=False,
            bias=True,
        )
        self.in_channels = self.out_channels = in_channels

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        level = F.avg_pool2d(condition.to(x.dtype), 2)  # (B,1,H/2,W/2)
        mosaic = torch.cat((F.pixel_unshuffle(x, 2), level), dim=1)  # (B,4C+1,H/2,W/2)
        return F.pixel_shuffle(self.model(mosaic), 2)

    @classmethod
    def infer_arguments(cls, state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """The constructor's arguments, inferred from a state dict of this architecture; else None."""
        names = convolution_names(state, "model")
        if len(names) < 3 or names[0] != "model.0.weight":
            return None
        channels, inputs = state[names[0]].shape[:2]
        outputs = state[names[-1]].shape[0]
        if inputs != outputs + 1 or outputs % 4:
            return None
        return {"in_channels": outputs // 4, "depth": len(names), "channels": channels}
