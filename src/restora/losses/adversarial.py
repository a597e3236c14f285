"""Adversarial losses of the generator and the discriminator, as functions of the discriminator's logits.

Each has `generator(real, fake)` and `discriminator(real, fake)`, functions of the logits of clean ("real")
and restored ("fake") photos, any shape, larger meaning "clean"; both are minimised. `penalty` is a further
term of the discriminator's loss. In the generator's half-step gradients flow only through `fake`; only the
relativistic loss uses `real` there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restora import processes
from restora.registry import register


class AdversarialLoss(ABC):
    """A loss for the generator and one for the discriminator, both scalars."""

    @abstractmethod
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The generator's loss."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss."""

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:  # noqa: ARG002
        """A regularisation term of the discriminator, given its input photos, (B,C,H,W) each.

        By default 0.
        """
        return real.new_zeros(())


@register("loss", "vanilla")
class VanillaLoss(AdversarialLoss):
    """Cross-entropy, non-saturating for the generator (Goodfellow et al., NeurIPS 2014, section 3)."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:  # noqa: ARG002
        return F.softplus(-fake).mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()


@register("loss", "least_squares")
class LeastSquaresLoss(AdversarialLoss):
    """Squared distance to 1 (clean) and 0 (restored), halved (Mao et al., ICCV 2017, equation 9)."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:  # noqa: ARG002
        return 0.5 * (fake - 1).square().mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())


@register("loss", "hinge")
class HingeLoss(AdversarialLoss):
    """Hinge loss with a margin of 1 (Lim and Ye, "Geometric GAN", 2017; Miyato et al., ICLR 2018)."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:  # noqa: ARG002
        return -fake.mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


@register("loss", "wasserstein")
class WassersteinLoss(AdversarialLoss):
    """Difference of mean logits with gradient penalty (Gulrajani et al., NeurIPS 2017, equation 3).

    The penalty pulls the gradient norm to 1 at points between clean and restored photos, drawn uniformly
    with torch's global generator. It has no meaning for a discriminator whose batch norm couples photos.
    """

    def __init__(self, *, penalty_weight: float = 10.0) -> None:
        if penalty_weight < 0:
            raise ValueError(f"penalty_weight is 0 or more, got {penalty_weight}")
        self.penalty_weight = penalty_weight

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:  # noqa: ARG002
        return -fake.mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def penalty(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        if self.penalty_weight == 0:
            return real.new_zeros(())
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            at = processes.uniform(real.shape[0], 1, 1, 1, device=real.device)
            between = torch.lerp(fake.detach().float(), real.detach().float(), at).requires_grad_()
            logits = discriminator(between)
            (gradient,) = torch.autograd.grad(logits.sum(), between, create_graph=True)  # (B,C,H,W)
            length = gradient.flatten(1).norm(dim=1)
            return self.penalty_weight * (length - 1).square().mean()


Kind = Literal["vanilla", "least_squares", "hinge"]

# the cost of a relative logit that should be large; for one that should be small, flip its sign
_COSTS: dict[str, Callable[[Tensor], Tensor]] = {
    "vanilla": lambda logit: F.softplus(-logit),
    "least_squares": lambda logit: (logit - 1).square(),
    "hinge": lambda logit: F.relu(1 - logit),
}


@register("loss", "relativistic")
class RelativisticAverageLoss(AdversarialLoss):
    """Clean photos should get a higher logit than restored ones on average, and vice versa.

    Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019, section 4.2 (RaSGAN, RaLSGAN,
    RaHingeGAN). Kind "vanilla" is ESRGAN's (Wang et al., ECCV Workshops 2018, equations 1 and 2).
    """

    def __init__(self, *, kind: Kind = "vanilla") -> None:
        if kind not in _COSTS:
            raise ValueError(f"a relativistic loss is of kind {', '.join(_COSTS)}; got {kind!r}")
        self.cost = _COSTS[kind]

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.discriminator(fake, real)  # the same loss with real and fake exchanged

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        real_mean, fake_mean = processes.averaged(torch.stack((real.mean(), fake.mean()))).unbind()
        return self.cost(real - fake_mean).mean() + self.cost(real_mean - fake).mean()
