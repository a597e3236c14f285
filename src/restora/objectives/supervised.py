"""Supervised objectives: restored against clean photos, as a whole, at several scales, or by a mask.

Losses take photos, float32 (B,C,H,W) on the [0,1] scale, also for networks that predict a residual.

Legend: B samples, C channels, H height, W width, K condition channels.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora.losses.pixel import centre_of, smallest_side
from restora.objectives.base import Centre, Objective, Setting, Step, Terms, check_weights
from restora.registry import register

Loss = Callable[[Tensor, Tensor], Tensor]


@register("objective", "supervised")
class Supervised(Objective):
    """`loss(restored, clean)`, or `loss(restored, target)` where the data have a target."""

    def __init__(self, *, loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        check_loss(loss)
        self.loss = loss

    @property
    def centre(self) -> Centre | None:
        return centre_of(self.loss)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_side(self.loss, setting)

    def terms(self, step: Step) -> Terms:
        return {"": compared(self.loss, step.restored, step.supervision)}


@register("objective", "perceptual")
class Perceptual(Supervised):
    """A loss on features of a pretrained network, used beside a supervised one.

    It is `Supervised` under another name, with a weight of its own (Johnson, Alahi, Fei-Fei, ECCV 2016).
    """

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if setting.network.out_channels not in (1, 3):
            raise ValueError(
                "objective=perceptual compares photos of 1 or 3 channels, the network gives "
                f"{setting.network.out_channels}: leave perceptual out of objective=[…]"
            )


@register("objective", "multi_scale")
class MultiScale(Objective):
    """Deep supervision: side outputs of a decoder are compared with the clean photo, downscaled.

    Lee et al., "Deeply-Supervised Nets", AISTATS 2015; at U-Net scales Zhou et al., "UNet++", 2018.
    `scale_weights` are the weights of the losses at full, half, quarter ... size. `hole_weight` as in
    `Masked`, null for no mask.
    """

    def __init__(
        self, *, loss: Loss, scale_weights: Sequence[float], hole_weight: float | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        if not scale_weights or min(scale_weights) < 0:
            raise ValueError(
                "objective.multi_scale.scale_weights must be one or more numbers >= 0, got "
                f"{list(scale_weights)}"
            )
        if hole_weight is not None:
            check_weights("multi_scale", hole_weight=hole_weight)
        check_loss(loss)
        self.loss, self.scale_weights, self.hole_weight = loss, tuple(scale_weights), hole_weight

    @property
    def scales(self) -> int:
        return len(self.scale_weights)

    def check(self, setting: Setting) -> None:
        super().check(setting)
        name = type(setting.network).__name__
        if self.scales > 1 and not hasattr(setting.network, "restore_scales"):
            raise ValueError(f"{name} has no side outputs: set objective=supervised, or choose network=unet")
        given = 1 + int(getattr(setting.network, "side_outputs", 0))
        if self.scales > given:
            raise ValueError(
                f"{name} gives {given} sizes, objective.multi_scale.scale_weights names {self.scales}: set "
                f"network.side_outputs={self.scales - 1} or shorten objective.multi_scale.scale_weights"
            )
        check_side(self.loss, setting, reduced=2 ** (self.scales - 1))
        if self.hole_weight is not None:
            _check_mask(setting, "objective.multi_scale.hole_weight=null")

    def terms(self, step: Step) -> Terms:
        terms: Terms = {}
        clean, mask = step.supervision, step.condition
        for level, (weight, output) in enumerate(zip(self.scale_weights, step.outputs, strict=False)):
            size = output.shape[-2:]  # (H/2^level, W/2^level)
            wanted = F.interpolate(clean, size=size, mode="area") if level else clean
            known = None if mask is None else F.interpolate(mask, size=size, mode="area") if level else mask
            part = masked_loss(self.loss, output, wanted, known, self.hole_weight)
            step.record(f"train/loss_scale_{2**level}", part.detach())
            terms[f"scale_{2**level}"] = weight * part
        return terms


@register("objective", "masked")
class Masked(Objective):
    """The loss on known pixels plus `hole_weight` times the loss on missing ones.

    Liu et al., "Image Inpainting for Irregular Holes", ECCV 2018, use 6. The condition is the mask: 1
    where a pixel is known.
    """

    def __init__(self, *, loss: Loss, hole_weight: float = 6.0, **options: Any) -> None:
        super().__init__(**options)
        check_weights("masked", hole_weight=hole_weight)
        check_loss(loss)
        self.loss, self.hole_weight = loss, hole_weight

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_side(self.loss, setting)
        _check_mask(setting, "objective=supervised")

    def terms(self, step: Step) -> Terms:
        return {"": masked_loss(self.loss, step.restored, step.supervision, step.condition, self.hole_weight)}


def check_side(loss: Loss, setting: Setting, *, reduced: int = 1) -> None:
    """Raises ValueError if training patches, `reduced` so many times, are smaller than the loss accepts."""
    least, scale = smallest_side(loss) * reduced, setting.network.scale
    if setting.patch_size >= least:
        return
    raise ValueError(
        f"the loss {type(loss).__name__} needs photos of {least}x{least} or more, the patches are "
        f"{setting.patch_size}: set data.patch_size={-(-least // scale) * scale} or more, or another loss"
    )


def _check_mask(setting: Setting, otherwise: str) -> None:
    if setting.undamaged[:1] != (1.0,):
        raise ValueError(
            "a loss by mask needs a degradation whose condition is a mask of known pixels, such as "
            f"degradation=inpaint_brush: choose one, or set {otherwise}"
        )


def masked_loss(
    loss: Loss, restored: Tensor, clean: Tensor, mask: Tensor | None, hole_weight: float | None
) -> Tensor:
    """`loss` on known pixels plus `hole_weight` times that on missing ones; unmasked without a weight."""
    if hole_weight is None or mask is None:
        return compared(loss, restored, clean)
    known = mask[:, :1]  # (B,1,H,W): 1 where the pixel is known
    return compared(loss, restored * known, clean * known) + hole_weight * compared(
        loss, restored * (1 - known), clean * (1 - known)
    )


def check_loss(loss: Loss) -> None:
    """Raises ValueError for a loss that does not take restored and clean photos."""
    try:
        signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise ValueError(
            f"the loss {_name(loss)} takes {signature}, expected (restored, clean): two batches of photos"
        ) from None


def compared(loss: Loss, restored: Tensor, clean: Tensor) -> Tensor:
    """`loss(restored, clean)`; raises ValueError if that is not a scalar tensor with its autograd graph."""
    value: Any = loss(restored, clean)
    if not isinstance(value, Tensor):
        fault = f"a {type(value).__name__}: leave float() and item() out"
    elif value.ndim != 0:
        fault = f"the shape {tuple(value.shape)}: average it, such as by .mean()"
    elif torch.is_grad_enabled() and restored.requires_grad and not value.requires_grad:
        fault = "a value that nothing can learn from: leave detach(), item() and no_grad out"
    else:
        return value
    raise ValueError(f"the loss {_name(loss)} returned {fault}; expected a tensor with one number")


def _name(loss: Loss) -> str:
    return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", repr(loss))
