"""SURE: the mean squared error to the clean photo, estimated without it.

C. Stein, "Estimation of the Mean of a Multivariate Normal Distribution", Annals of Statistics 1981; the
divergence is estimated along one random direction as in S. Ramani, T. Blu, M. Unser, "Monte-Carlo SURE", TIP
2008, and used for training in S. Soltanayev, S. Y. Chun, "Training Deep Learning Based Denoisers without
Ground Truth Data", NeurIPS 2018.
"""

from typing import Any

import torch

from restora.objectives.base import Step, Terms
from restora.objectives.without_clean import OfKnownLevel
from restora.registry import register


@register("objective", "sure")
class Sure(OfKnownLevel):
    """`|f(y) - y|^2 - s^2 + 2 s^2 div f(y)`, each a mean over pixels.

    `div` is a finite difference of f along a random normal direction, divided by `epsilon`. It is computed
    in full float32, without autocast and, in a training, TF32, as the difference is small.
    """

    exact = True

    def __init__(self, *, epsilon: float = 1e-3, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < epsilon < 1:
            raise ValueError(f"objective.sure.epsilon must be in (0, 1), got {epsilon}")
        self.epsilon = epsilon

    def terms(self, step: Step) -> Terms:
        noisy, variance = step.degraded.float(), self.level(step).float().square()
        direction = step.generator("sure").normal(noisy.shape[1:])
        with torch.autocast(noisy.device.type, enabled=False):
            restored = step.restore(noisy, step.condition)
            moved = step.restore(noisy + self.epsilon * direction, step.condition)
        divergence = direction * (moved - restored) / self.epsilon  # its mean over pixels: div f / n
        risk = (restored - noisy).square() - variance + 2 * variance * divergence
        return {"": risk.mean()}
