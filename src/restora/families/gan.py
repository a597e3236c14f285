"""GANs: a generator that restores and a discriminator that judges, in two half-steps on each batch.

What differs from the base recipe: two optimisers stepped by hand, a loss of up to four terms (pixel,
perceptual, feature matching, adversarial), and diagnostics of the discriminator at every step, because a GAN
fails by the balance of the two and not by its loss.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from restora.families.base import Family, MakeOptimizer, arranged, enlarge
from restora.losses.adversarial import AdversarialLoss
from restora.losses.perceptual import feature_matching
from restora.registry import register
from restora.types import Batch


@register("family", "gan")
class GanFamily(Family):
    """Recipe of SRGAN (Ledig et al., CVPR 2017) and its kin (ESRGAN, pix2pix), by its weights and losses.

    `network` is the generator, `loss` its pixel term. `perceptual` compares restored with clean photos,
    (B,C,H,W) each. Feature matching compares the discriminator's own features (Wang et al., "High-Resolution
    Image Synthesis", CVPR 2018, eq. 4) and needs no weights from elsewhere. `conditional` shows the degraded
    photo to the discriminator beside the other (pix2pix, Isola et al., CVPR 2017). In the first
    `warmup_steps` the generator follows the pixel term alone while the discriminator already learns. A term
    whose weight is 0 is not computed.
    """

    name = "gan"
    optimizer_steps_per_batch = 2
    leaves_parameters_unused = True

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        adversarial: AdversarialLoss,
        discriminator_optimizer: MakeOptimizer,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        pixel_weight: float = 1.0,
        perceptual_weight: float = 0.0,
        matching_weight: float = 0.0,
        adversarial_weight: float = 1e-3,
        conditional: bool = False,
        warmup_steps: int = 0,
        gradient_clip: float | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(**recipe)
        if perceptual_weight > 0 and perceptual is None:
            raise ValueError(
                "family.perceptual_weight > 0 but family.perceptual is null: choose a "
                "perceptual loss, or set family.perceptual_weight=0 and family.matching_weight for "
                "the discriminator's own features"
            )
        self.automatic_optimization = False
        self.discriminator = arranged(discriminator, self.memory_format)
        self.adversarial = adversarial
        self.make_discriminator_optimizer = discriminator_optimizer
        self.perceptual = perceptual
        self.pixel_weight, self.perceptual_weight = pixel_weight, perceptual_weight
        self.matching_weight, self.adversarial_weight = matching_weight, adversarial_weight
        self.conditional, self.warmup_steps, self.gradient_clip = conditional, warmup_steps, gradient_clip

    def configure_optimizers(self) -> list[Optimizer]:
        generator = self.make_optimizer(self.network.parameters())
        discriminator = self.make_discriminator_optimizer(self.discriminator.parameters())
        return [self._ready(generator), self._ready(discriminator)]

    def training_step(self, batch: Batch, batch_index: int) -> None:
        generator, discriminator = cast(list[Optimizer], self.optimizers())
        restored = self(batch.degraded, batch.condition)  # (B,C,H,W)
        self.toggle_optimizer(generator)
        self.generator_step(generator, batch, restored)
        self.untoggle_optimizer(generator)
        self.update_ema()
        self.toggle_optimizer(discriminator)
        self.discriminator_step(discriminator, batch, restored.detach())
        self.untoggle_optimizer(discriminator)

    def generator_step(self, optimizer: Optimizer, batch: Batch, restored: Tensor) -> None:
        """First half-step: the generator against the pixel, perceptual, matching and adversarial terms."""
        terms = {"pixel": self.pixel_weight * self.loss(restored.float(), batch.clean)}
        if self.steps_done() >= self.warmup_steps:
            terms |= self._perceptual_terms(batch, restored)
        loss = torch.stack(list(terms.values())).sum()
        self._step(optimizer, loss, self.network)
        size = len(batch.names)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"generator/{key}": term.detach() for key, term in terms.items()}, batch_size=size)

    def _perceptual_terms(self, batch: Batch, restored: Tensor) -> dict[str, Tensor]:
        terms = {}
        if self.perceptual_weight > 0 and self.perceptual is not None:
            terms["perceptual"] = self.perceptual_weight * self.perceptual(restored.float(), batch.clean)
        if self.matching_weight > 0 or self.adversarial_weight > 0:
            fake = self.discriminator.features(self._shown(restored, batch))
            with torch.no_grad():
                real = self.discriminator.features(self._shown(batch.clean, batch))
            if self.matching_weight > 0:  # the last entry is the logits
                terms["matching"] = self.matching_weight * feature_matching(fake[:-1], real[:-1])
            if self.adversarial_weight > 0:
                terms["adversarial"] = self.adversarial_weight * self.adversarial.generator(
                    real[-1].float(), fake[-1].float()
                )
        return terms

    def discriminator_step(self, optimizer: Optimizer, batch: Batch, restored: Tensor) -> None:
        """Second half-step: the discriminator against clean and (detached) restored photos."""
        clean, shown = self._shown(batch.clean, batch), self._shown(restored.float(), batch)
        real, fake = self.discriminator(clean).float(), self.discriminator(shown).float()
        loss = self.adversarial.discriminator(real, fake) + self.adversarial.penalty(
            self.discriminator, clean, shown
        )
        norm = self._step(optimizer, loss, self.discriminator)
        right = 0.5 * ((real > fake.mean()).float().mean() + (fake < real.mean()).float().mean())
        diagnostics = {
            "loss": loss.detach(),
            "real": real.detach().mean(),
            "fake": fake.detach().mean(),
            "accuracy": right,  # each side told from the other's mean; 0.5 is guessing, 1.0 has won
            "gradient_norm": norm,
        }
        self.log_dict(
            {f"discriminator/{key}": value for key, value in diagnostics.items()}, batch_size=len(batch.names)
        )

    def _step(self, optimizer: Optimizer, loss: Tensor, network: nn.Module) -> Tensor:
        """One optimiser step; the norm of the gradient before clipping."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        limit = float("inf") if self.gradient_clip is None else self.gradient_clip
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
        optimizer.step()
        return norm

    def _shown(self, photos: Tensor, batch: Batch) -> Tensor:
        """What the discriminator sees: (B,C,H,W), with the degraded photo behind it if conditional."""
        if not self.conditional:
            return photos
        return torch.cat([photos, enlarge(batch.degraded, photos.shape[-2:])], dim=1)
