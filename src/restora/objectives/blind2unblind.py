"""Blind2Unblind: every pixel is masked once, and the output for the unmasked photo is part of the loss.

Z. Wang, J. Liu, G. Li, H. Han, "Blind2Unblind: Self-Supervised Image Denoising with Visible Blind Spots",
CVPR 2022. One pixel of each cell is hidden at a time and replaced by a mean of its surroundings. The outputs
at the hidden pixels of all these versions are assembled to one photo (the global mask mapper), through which
gradients flow. The output for the unmasked photo, without gradient, is added with a growing weight (the
re-visible loss), so that the exported network can use all pixels without copying their noise.

Note: a step runs the network on `cell` squared versions of each photo, 16 times the work of most objectives.
A network that starts as the identity (a residual one with small last weights) hardly learns: its output at a
hidden pixel is the mean of the surroundings, already a fair estimate, and the loss demands no more. In 100
steps such a DnCNN went from 20.2 dB to 20.3; four plain convolutions reached 24.4 in 150.

Legend: B samples, C channels, H height, W width, n = cell squared.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.objectives.base import Setting, Step, Terms, check_weights
from restora.objectives.without_clean import WithoutClean
from restora.registry import register

_STEADY = 0.8
"""The share of the training during which the weight stays at `visible`, before it grows."""
_AROUND = ((0.5, 1.0, 0.5), (1.0, 0.0, 1.0), (0.5, 1.0, 0.5))
"""Weights of the pixels whose mean replaces a hidden one, before normalisation to sum 1."""


@register("objective", "blind2unblind")
class Blind2Unblind(WithoutClean):
    """`|h - y + b (g - y)|^2 + w |h - y|^2`, h the outputs at hidden pixels, g for the unmasked photo.

    b is `visible` for the first 0.8 of the training and grows to `visible_at_end`; w is `blind`. One pixel of
    each `cell` x `cell` is hidden at a time.
    """

    def __init__(
        self,
        *,
        cell: int = 4,
        blind: float = 1.0,
        visible: float = 2.0,
        visible_at_end: float = 20.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if cell < 2:
            raise ValueError(f"objective.blind2unblind.cell must be 2 or more pixels, got {cell}")
        check_weights("blind2unblind", blind=blind, visible=visible, visible_at_end=visible_at_end)
        self.cell, self.blind = cell, blind
        self.visible, self.visible_at_end = visible, visible_at_end

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if setting.patch_size < 2 * self.cell:
            raise ValueError(
                f"objective Blind2Unblind hides one pixel in {self.cell}x{self.cell}, the patches are "
                f"{setting.patch_size}: set data.patch_size={2 * self.cell} or more"
            )

    def terms(self, step: Step) -> Terms:
        noisy = step.degraded.float()
        hidden = self.blind_answer(step) - noisy
        with torch.no_grad():
            seen = step.restore(step.degraded, step.condition) - noisy
        terms = {"": (hidden + self.weight_of_visible(step.progress) * seen).square().mean()}
        if self.blind > 0:
            terms["blind"] = self.blind * hidden.square().mean()
        return terms

    def weight_of_visible(self, progress: float) -> float:
        """The weight b at a share of the training."""
        grown = max(progress - _STEADY, 0.0) / (1 - _STEADY)
        return self.visible + grown * (self.visible_at_end - self.visible)

    def blind_answer(self, step: Step) -> Tensor:
        """The output at each pixel for the version in which it is hidden, (B,C,H,W)."""
        noisy, count = step.degraded, self.cell**2
        around = surroundings(noisy)
        masks = self.masks(noisy)  # (n,1,1,H,W)
        shown = torch.where(masks > 0, around, noisy).flatten(0, 1)  # (nB,C,H,W)
        condition = None if step.condition is None else step.condition.repeat(count, 1, 1, 1)
        answers = step.restore(shown, condition).unflatten(0, (count, -1))  # (n,B,C,H,W)
        return (answers * masks).sum(0)

    def masks(self, photos: Tensor) -> Tensor:
        """(n,1,1,H,W): 1 where a version hides the pixel; the sum over versions is 1 everywhere."""
        height, width = photos.shape[-2:]
        row = torch.arange(height, device=photos.device) % self.cell
        column = torch.arange(width, device=photos.device) % self.cell
        which = row[:, None] * self.cell + column
        versions = torch.arange(self.cell**2, device=photos.device)
        return (versions[:, None, None] == which).float()[:, None, None]


def surroundings(photos: Tensor) -> Tensor:
    """The mean of each pixel's eight neighbours, with double weight for the direct ones: (B,C,H,W).

    Without autocast.
    """
    kernel = torch.tensor(_AROUND, dtype=photos.dtype, device=photos.device)
    kernel = (kernel / kernel.sum()).expand(photos.shape[1], 1, 3, 3)
    padded = F.pad(photos, (1, 1, 1, 1), mode="reflect")
    with torch.autocast(photos.device.type, enabled=False):
        return F.conv2d(padded, kernel, groups=photos.shape[1])
