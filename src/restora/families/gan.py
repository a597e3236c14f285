"""GANs: a restoration network and a discriminator, trained in two half-steps on each batch.

What differs from the base recipe is the objective: a supervised term, an adversarial term and often a
perceptual one (`objectives/adversarial.py`). The loss does not show whether generator and discriminator are
balanced, so the discriminator's diagnostics are logged with it.
"""

from typing import Any

from restora.families.base import Family
from restora.registry import register


@register("family", "gan")
class GanFamily(Family):
    """Recipe of SRGAN and similar GANs (ESRGAN, pix2pix), set by the objectives and their weights.

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
