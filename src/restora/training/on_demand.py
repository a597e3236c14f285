"""On-demand learning: the worse validation restores a severity, the more often training draws it."""

import logging
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from restora.degradations.compose.composition import OnDemand
from restora.families.base import Family
from restora.keyed import image_key

log = logging.getLogger(__name__)


class FollowValidation(Callback):
    """Sets the shares of an `OnDemand` degradation after each validation.

    The stage of a validation photo is a function of its name. All processes have all scores, so they compute
    the same shares; these are saved in the checkpoint, so a resumed run draws the same as an uninterrupted
    one.
    """

    def __init__(self, degradation: OnDemand) -> None:
        self.degradation = degradation
        self._said_missing = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        scores: dict[str, list[float]] = {}
        rows = [row for row in cast(Family, module).scores if row.get("psnr") is not None]
        keys = torch.tensor([image_key(str(row["name"])) for row in rows], dtype=torch.int64)
        for stage, row in zip(self.degradation.stage_of(keys), rows, strict=True):
            scores.setdefault(stage, []).append(float(cast(float, row["psnr"])))
        if not scores:
            return
        self.degradation.ask({stage: sum(values) / len(values) for stage, values in scores.items()})
        missing = [stage for stage in self.degradation.stages if stage not in scores]
        if missing and not self._said_missing:
            self._said_missing = True
            log.warning(
                "no validation photo goes through %s: it counts as the mean; give more validation photos",
                ", ".join(missing),
            )
        log.info(
            "drawn from here on: %s", ", ".join(f"{k} {v:.1%}" for k, v in self.degradation.shares.items())
        )

    def state_dict(self) -> dict[str, Any]:
        return {"weights": list(self.degradation.in_training.weights)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.degradation.in_training.weights = [float(weight) for weight in state_dict["weights"]]
