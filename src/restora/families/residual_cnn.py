"""Residual CNNs (DnCNN, VDSR, SRResNet, EDSR and kin): the network predicts what is wrong with the photo.

What differs from the base recipe: the loss is taken on the residual, weights start orthogonal or by He's
rule, and gradients can be clipped adjustably as VDSR needs for its high learning rates.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from restora.families.base import Family, enlarge
from restora.registry import register
from restora.types import Batch

Initialisation = Literal["he", "orthogonal", "network"]


@register("family", "residual_cnn")
class ResidualCNN(Family):
    """Recipe of residual learning (Zhang et al., "Beyond a Gaussian Denoiser", TIP 2017, eq. 1).

    `initialisation`: "he" (the paper's, its reference 33), "orthogonal" (KAIR's), or "network" for what the
    constructor did. `adjustable_clip` is the theta of VDSR (Kim et al., CVPR 2016, section 3.2): gradients
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
            raise ValueError(f"family.initialisation is he, orthogonal or network, got {initialisation!r}")
        if initialisation != "network":
            initialise(recipe["network"], initialisation)
        super().__init__(**recipe)
        self.adjustable_clip = adjustable_clip

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss of the predicted residual, restored - degraded, against the true one, clean - degraded."""
        restored = self(batch.degraded, batch.condition).float()
        start = enlarge(batch.degraded, batch.clean.shape[-2:])
        predicted, true = restored - start, batch.clean - start
        self.log("train/residual_std", predicted.detach().std(), batch_size=len(batch.names))
        return self.loss(predicted, true)

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
    """Convolutions by the rule, biases zero; batch norms keep their ones and zeros."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if rule == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
