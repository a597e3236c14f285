"""Noise2Noise: the target is another noisy version of the photo.

J. Lehtinen et al., "Noise2Noise: Learning Image Restoration without Clean Data", ICML 2018: the squared error
is minimal at the mean of the target's distribution, the absolute error at its median, and the error to the
power p -> 0 at its mode. Noisy targets are equivalent to clean ones if that centre is the clean photo.
"""

from typing import Any, Literal, get_args

from torch import Tensor

from restora.objectives.base import CENTRES, Centre, Setting, Step, Terms
from restora.objectives.without_clean import WITHOUT, WithoutClean
from restora.registry import register

Norm = Literal["l2", "l1", "l0"]
_FINDS: dict[str, Centre] = {"l2": "mean", "l1": "median", "l0": "mode"}
_EPSILON = 1e-8


@register("objective", "noise2noise")
class Noise2Noise(WithoutClean):
    """Compares the restored photo with a second noisy version of the same photo.

    `norm` is l2 for zero-mean noise, l1 where less than half of the pixels are corrupted (text), l0 for
    impulse noise: `(|d| + 1e-8)^g`, g from 2 down to 0 over the training (section 3.4). The second version
    is the data's target, another draw of the degradation, or the partner of a pair.
    """

    takes_target = True
    needs_independence = False
    expects_noisy_partners = True

    def __init__(self, *, norm: Norm = "l2", **options: Any) -> None:
        super().__init__(**options)
        if norm not in get_args(Norm):
            raise ValueError(f"objective.noise2noise.norm must be l2, l1 or l0, got {norm!r}")
        self.norm = norm

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if setting.noise is None:
            if not setting.has_clean:
                raise ValueError(
                    "objective Noise2Noise needs two noisy versions of each photo, and these come once: "
                    "choose objective=neighbor2neighbor or noise2void, or give pairs (data=paired_folder)"
                )
            return
        centre = _FINDS[self.norm]
        if centre not in setting.noise.centres:
            right = [f"l{'210'[CENTRES.index(one)]}" for one in CENTRES if one in setting.noise.centres]
            fix = f"set objective.noise2noise.norm={right[0]}" if right else WITHOUT
            raise ValueError(
                f"objective Noise2Noise with norm {self.norm} finds the {centre} of noisy photos, and the "
                f"{centre} of {setting.noise.name} is not the photo: {fix}"
            )

    def terms(self, step: Step) -> Terms:
        difference = step.restored - second_version(step)
        if self.norm == "l1":
            return {"": difference.abs().mean()}
        if self.norm == "l0":
            return {"": (difference.abs() + _EPSILON).pow(2 * (1 - step.progress)).mean()}
        return {"": difference.square().mean()}


def second_version(step: Step) -> Tensor:
    """The noisy target, (B,C,H,W): the data's target, a second draw, or the partner of a pair."""
    if step.batch.target is None and step.batch.redegrade is not None:
        return step.redegrade("target")
    return step.supervision
