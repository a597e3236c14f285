"""Residual CNNs (DnCNN, VDSR, SRResNet, EDSR etc.): the network predicts the residual of the photo.

What differs from the base recipe: weights start orthogonal or by He's rule, the residual's standard deviation
is logged, and adjustable gradient clipping serves the high learning rates of VDSR. Losses take photos, as in
every family: a loss of the difference has the same value on the residual.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from restora.families.base import Family
from restora.image import enlarge
from restora.objectives.base import Step
from restora.registry import register

Initialisation = Literal["he", "orthogonal", "network"]


@register("family", "residual_cnn")
class ResidualCNN(Family):
    """Recipe of residual learning (Zhang et al., "Beyond a Gaussian Denoiser", TIP 2017, eq. 1).

    `initialisation`: "he" (the paper's, its reference 33), "orthogonal" (KAIR's), or "network" for
    the constructor's. `adjustable_clip` is the theta of VDSR (Kim et al., CVPR 2016, section 3.2): gradients
    are clipped to [-theta/rate, theta/rate], where rate is the current learning rate.
    """

    name = "residual_cnn"

    def __init__(
        self,
        *,
        initialisation: Initialisation = "network",
        adjustable_clip: float | None = None,
        **recipe: Any,
    ) -> None:
        if initialisation not in ("he", "orthogonal", "network"):
            raise ValueError(
                f"family.initialisation must be he, orthogonal or network, got {initialisation!r}"
            )
        if initialisation != "network":
            initialise(recipe["network"], initialisation)
        super().__init__(**recipe)
        self.adjustable_clip = self._checked_clip(adjustable_clip)

    def _checked_clip(self, theta: float | None) -> float | None:
        """`theta`; raises ValueError where it would clip nothing or everything."""
        if theta is None:
            return None
        if not 0 < theta < math.inf:
            raise ValueError(f"family.adjustable_clip must be above 0, or null to clip nothing; got {theta}")
        if self.opponents:
            raise ValueError(
                f"family.adjustable_clip={theta} is for one optimiser, and {' and '.join(self.opponents)} "
                "brings another: set family.adjustable_clip=null and family.gradient_clip, the norm of each"
            )
        return theta

    def loss_of(self, step: Step) -> Tensor:
        """The sum of the objectives; logs the standard deviation of the predicted residual."""
        loss = super().loss_of(step)
        if not step.ran or not self.step_log.now:
            return loss  # the objectives ran the network on other inputs than the batch
        restored = step.restored.detach()
        given = step.batch.middle
        if restored.shape[1] == given.shape[1]:
            start = enlarge(given, restored.shape[-2:])
            step.record("train/residual_std", (restored - start).std())
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self.adjustable_clip is None:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        rate = max(group["lr"] for group in optimizer.param_groups)
        nn.utils.clip_grad_value_(self.network.parameters(), self.adjustable_clip / max(rate, 1e-12))


def initialise(network: nn.Module, rule: Initialisation) -> None:
    """Initialises convolutions by the rule, their biases to zero; batch norms are left as they are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if rule == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
