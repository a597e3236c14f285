"""Distillation: the target is the output of a trained network, the teacher, for the degraded photo.

Legend: B samples, C channels, H height, W width.
"""

from typing import Any

import torch

from restora.networks.base import Network
from restora.objectives.base import Objective, Setting, Step, Terms
from restora.objectives.supervised import Loss, check_loss, check_side, compared
from restora.registry import register


@register("objective", "distil")
class Distil(Objective):
    """`loss(restored, teacher's output)`; needs no clean photos.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, on outputs.

    `teacher` is in evaluation mode, is not trained, and is not part of a checkpoint. Its output is clamped
    to [0,1], as in a saved photo.
    """

    needs_clean = False
    takes_target = False

    def __init__(self, *, teacher: Network, loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        check_loss(loss)
        self.loss = loss
        self._teacher = [teacher.eval().requires_grad_(False)]  # a list: not in the state dict

    @property
    def teacher(self) -> Network:
        """The trained network."""
        return self._teacher[0]

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_side(self.loss, setting)
        student, teacher = setting.network, self.teacher
        for what in ("scale", "in_channels", "out_channels"):
            have, wanted = getattr(teacher, what), getattr(student, what)
            if have != wanted:
                raise ValueError(
                    f"the teacher has {what}={have}, the network that learns {what}={wanted}: take another "
                    f"teacher (objective.distil.teacher=…) or set network.{what}={have}"
                )
        if teacher.condition_channels not in (0, len(setting.undamaged)):
            raise ValueError(
                f"the teacher needs a condition of {teacher.condition_channels} channel(s), the degradation "
                f"gives {len(setting.undamaged) or 'none'}: choose a degradation with that condition"
            )

    def terms(self, step: Step) -> Terms:
        if next(self.teacher.parameters()).device != step.degraded.device:
            self.teacher.to(step.degraded.device)
        with torch.no_grad():
            degraded = step.degraded.contiguous(memory_format=step.memory_format)
            aim = self.teacher(degraded, step.condition).float().clamp(0, 1)
        return {"": compared(self.loss, step.restored, aim)}
