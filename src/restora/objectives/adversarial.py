"""The adversarial loss of a discriminator, and feature matching.

The network's half-step takes the gradient of the adversarial loss through the discriminator; the
discriminator's own half-step comes next, with the restored photos detached. Both use the restored photos of
one forward pass.

Legend: B samples, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from restora.image import enlarge
from restora.losses.adversarial import AdversarialLoss, WassersteinLoss
from restora.losses.perceptual import feature_matching
from restora.networks.discriminators import Discriminator
from restora.objectives.base import MakeOptimizer, Objective, Opponent, Setting, Step, Terms
from restora.objectives.showing import check_discriminator, check_levels
from restora.registry import register


@register("objective", "adversarial")
class Adversarial(Opponent):
    """One of the GAN losses between the network and a discriminator (SRGAN, Ledig et al., CVPR 2017).

    `conditional` gives the discriminator the degraded photo as further channels (pix2pix, Isola et al., CVPR
    2017). Before `start_step` only the discriminator is trained. It does not get the network's condition.
    """

    def __init__(
        self,
        *,
        discriminator: Discriminator,
        loss: AdversarialLoss,
        optimizer: MakeOptimizer,
        conditional: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.discriminator, self.gan_loss, self._make_optimizer = discriminator, loss, optimizer
        self.conditional = conditional

    def check(self, setting: Setting) -> None:
        super().check(setting)
        network = setting.network
        channels = network.out_channels + (network.in_channels if self.conditional else 0)
        shown = "restored beside degraded photos" if self.conditional else "photos"
        key = "objective.adversarial.discriminator"
        check_discriminator(self.discriminator, channels, setting, key=key, shown=shown)
        if isinstance(self.gan_loss, WassersteinLoss) and self.gan_loss.penalty_weight > 0:
            normed = [type(m).__name__ for m in self.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
            if normed:
                raise ValueError(
                    "the gradient penalty of adversarial=wasserstein has no meaning with a discriminator "
                    "whose batch norm ties photos together: set "
                    "objective.adversarial.discriminator.norm=instance (or none), or another loss"
                )

    def make_optimizer(self) -> Optimizer:
        return self._make_optimizer(self.discriminator.parameters())

    def terms(self, step: Step) -> Terms:
        real, fake = self.features(step)
        return {"": self.gan_loss.generator(real[-1].float(), fake[-1].float())}

    def features(self, step: Step) -> tuple[list[Tensor], list[Tensor]]:
        """The discriminator's activations for clean and for restored photos, logits last; computed once."""
        if "discriminator" not in step.shared:
            fake = self.discriminator.features(self._shown(step.restored, step))
            with torch.no_grad():
                real = self.discriminator.features(self._shown(step.supervision, step))
            step.shared["discriminator"] = real, fake
        found: tuple[list[Tensor], list[Tensor]] = step.shared["discriminator"]
        return found

    def own_loss(self, step: Step) -> tuple[Tensor, Terms]:
        clean = self._shown(step.supervision, step)
        shown = self._shown(step.restored.detach(), step)
        return discriminator_loss(self.discriminator, self.gan_loss, clean, shown)

    def _shown(self, photos: Tensor, step: Step) -> Tensor:
        """The discriminator's input: (B,C,H,W), if conditional with the degraded photo as last channels."""
        if not self.conditional:
            return photos
        return torch.cat([photos, enlarge(step.degraded, photos.shape[-2:])], dim=1)


def discriminator_loss(
    discriminator: Discriminator, gan_loss: AdversarialLoss, real: Tensor, fake: Tensor
) -> tuple[Tensor, Terms]:
    """The loss of a discriminator for real and (detached) made photos, (B,C,H,W) each, and its figures.

    `accuracy` compares logits with the mean logit of the other side; 0.5 is chance.
    """
    of_real, of_fake = discriminator(real).float(), discriminator(fake).float()
    loss = gan_loss.discriminator(of_real, of_fake) + gan_loss.penalty(discriminator, real, fake)
    right = (of_real > of_fake.mean()).float().mean() + (of_fake < of_real.mean()).float().mean()
    return loss, {
        "loss": loss.detach(),
        "real": of_real.detach().mean(),
        "fake": of_fake.detach().mean(),
        "accuracy": 0.5 * right,
    }


@register("objective", "feature_matching")
class FeatureMatching(Objective):
    """The difference of the discriminator's features of restored and clean photos, level by level.

    Wang et al., "High-Resolution Image Synthesis", CVPR 2018, equation 4. It needs an adversarial objective
    beside it, but no pretrained weights.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._adversarial: list[Adversarial] = []  # a list, so that its weights are not registered twice

    def join(self, others: Mapping[str, Objective]) -> None:
        self._adversarial = [other for other in others.values() if isinstance(other, Adversarial)]
        if not self._adversarial:
            raise ValueError(
                "objective=feature_matching compares the features of a discriminator: add adversarial, "
                "objective=[supervised,adversarial,feature_matching]"
            )

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_levels(self._adversarial[0].discriminator, setting)

    def terms(self, step: Step) -> Terms:
        real, fake = self._adversarial[0].features(step)
        return {"": feature_matching(fake[:-1], real[:-1])}  # the last entry is the logits

    def validation_terms(self, step: Step) -> Terms:  # noqa: ARG002
        """Empty: features change with the discriminator, which also takes no photo below a minimum size."""
        return {}
