"""An early warning that a network learns nothing."""

import logging
import math
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from restora.families.base import Family
from restora.registry import register

log = logging.getLogger(__name__)
_ALIKE = 0.005
"""A difference in dB that two shown decimals hide."""
_EARLY = 100
"""Steps before the first validation that counts."""
_RESTORED, _INPUT = "val/psnr", "val/input_psnr"


@register("callback", "nothing_learned")
class NothingLearned(Callback):
    """Warns once if a network returns its input, or if its validation score does not change at all.

    It compares two successive validations, both after at least 100 steps. Typical causes are a dead branch
    (all ReLUs at 0), a far too low learning rate, or frozen weights.
    """

    def __init__(self) -> None:
        self.step = 0
        self.score: float | None = None
        """The score of the validation after `step` steps."""
        self.said = False

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "score": self.score, "said": self.said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        step, scores = cast(Family, module).steps_done(), trainer.callback_metrics
        if (
            trainer.sanity_checking
            or self.said
            or _RESTORED not in scores
            or step < max(_EARLY, self.step + 1)
        ):
            return
        before, self.score, self.step = self.score, float(scores[_RESTORED]), step
        what = None if before is None else _idle(before, self.score, float(scores.get(_INPUT, math.nan)))
        if what is not None:
            self.said = True
            log.warning("after %d steps %s; try another learning rate, network or initialisation", step, what)


def _idle(before: float, score: float, degraded: float) -> str | None:
    if max(abs(before - degraded), abs(score - degraded)) < _ALIKE:
        return f"the network returns its input: validation photos have {degraded:.2f} dB before and after it"
    if score == before:
        return f"validation has {score:.2f} dB as the time before: nothing that counts has changed"
    return None
