"""GANs: a network that restores and a discriminator that opposes it, in two half-steps on each batch.

What differs from the base recipe is the objective: a supervised term, one that convinces a discriminator,
and often one on features (`objectives/adversarial.py`). A GAN fails by the balance of the two and not by its
loss, so the discriminator's diagnostics are logged at every step.
"""

from typing import Any

from restora.families.base import Family
from restora.registry import register


@register("family", "gan")
class GanFamily(Family):
    """Recipe of SRGAN and its kin (ESRGAN, pix2pix), by its objectives and their weights.

    Ledig et al., CVPR 2017.
    """

    name = "gan"

    def __init__(self, **recipe: Any) -> None:
        super().__init__(**recipe)
        if not self.opponents:
            raise ValueError(
                f"family=gan needs an adversarial objective, got objective={list(self.objectives)}: set "
                "objective=[supervised,adversarial], or choose the family that the network is of"
            )
