"""U-Nets: an encoder-decoder that may be told where or how the photo is bad, supervised at several scales.

What differs from the base recipe: side outputs of the decoder are compared with the clean photo reduced to
their size, and the loss may be confined to what a mask says is missing.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from restora.families.base import Family
from restora.registry import register
from restora.types import Batch


@register("family", "unet")
class UNetFamily(Family):
    """Recipe with deep supervision (Lee et al., "Deeply-Supervised Nets", AISTATS 2015; at U-Net scales: Zhou
    et al. 2018).

    `scale_weights` are the weights of the losses at full, half, quarter ... size; more than one needs a
    network with side outputs (`restore_scales`). `hole_weight` is the weight of pixels that the condition, a
    mask of known pixels, marks as missing, against 1 for the known ones (Liu et al., "Image Inpainting for
    Irregular Holes", ECCV 2018, use 6); null treats the condition as something else than a mask.
    """

    name = "unet"

    def __init__(
        self, *, scale_weights: Sequence[float] = (1.0,), hole_weight: float | None = None, **recipe: Any
    ) -> None:
        super().__init__(**recipe)
        self.scale_weights = tuple(scale_weights)
        self.hole_weight = hole_weight
        if not self.scale_weights or min(self.scale_weights) < 0:
            raise ValueError(f"family.scale_weights are one or more numbers >= 0, got {list(scale_weights)}")
        if len(self.scale_weights) > 1 and not hasattr(self.network, "restore_scales"):
            raise ValueError(
                f"{type(self.network).__name__} has no side outputs: set family.scale_weights=[1.0], "
                "or choose network=unet"
            )

    def training_loss(self, batch: Batch) -> Tensor:
        if len(self.scale_weights) == 1:
            return self._masked_loss(
                self(batch.degraded, batch.condition).float(), batch.clean, batch.condition
            )
        degraded = batch.degraded.contiguous(memory_format=self.memory_format)
        outputs = self.network.restore_scales(degraded, batch.condition)
        if len(outputs) < len(self.scale_weights):
            raise ValueError(
                f"the network gives {len(outputs)} scales, family.scale_weights {len(self.scale_weights)}: "
                "set network.side_outputs or shorten family.scale_weights"
            )
        total = batch.clean.new_zeros(())
        for level, (weight, output) in enumerate(zip(self.scale_weights, outputs, strict=False)):
            size = output.shape[-2:]  # (H/2^level, W/2^level)
            clean = F.interpolate(batch.clean, size=size, mode="area") if level else batch.clean
            mask = None if batch.condition is None else F.interpolate(batch.condition, size=size, mode="area")
            part = self._masked_loss(output.float(), clean, mask)
            self.log(f"train/loss_scale_{2**level}", part.detach(), batch_size=len(batch.names))
            total = total + weight * part
        return total

    def _masked_loss(self, restored: Tensor, clean: Tensor, mask: Tensor | None) -> Tensor:
        if self.hole_weight is None or mask is None:
            return self.loss(restored, clean)
        known = mask[:, :1]  # (B,1,H,W): 1 where the pixel is known
        return self.loss(restored * known, clean * known) + self.hole_weight * self.loss(
            restored * (1 - known), clean * (1 - known)
        )
