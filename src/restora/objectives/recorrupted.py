"""Recorrupted-to-Recorrupted: added noise makes two independent noisy versions of one photo.

T. Pang et al., "Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising", CVPR 2021: with
y = x + n, n and z white Gaussian noise of one level, y + a z and y - z / a are independent given x, so the
second can be the target of the first.
"""

import math
from typing import Any

from restora.objectives.base import Step, Terms
from restora.objectives.without_clean import OfKnownLevel
from restora.registry import register


@register("objective", "recorrupted")
class Recorrupted(OfKnownLevel):
    """`|f(y + alpha z) - (y - z / alpha)|^2`, z drawn at every step.

    The network is trained on noise of level `sigma * sqrt(1 + alpha^2)`, and is conditioned on that level.
    """

    def __init__(self, *, alpha: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if alpha <= 0:
            raise ValueError(f"objective.recorrupted.alpha must be above 0, got {alpha}")
        self.alpha = alpha

    def terms(self, step: Step) -> Terms:
        noisy = step.degraded
        drawn = step.generator("recorrupted").normal(noisy.shape[1:]) * self.level(step)
        louder = math.sqrt(1 + self.alpha**2)
        condition = None if step.condition is None else step.condition * louder
        restored = step.restore(noisy + self.alpha * drawn, condition)
        return {"": (restored - (noisy - drawn / self.alpha)).square().mean()}
