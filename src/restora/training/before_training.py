"""The validation score of the weights that a run starts from, with which the result is compared.

Enters: a run whose network took all its weights from a source. Leaves: `init.scores` of run.json, and a line
that says whether the training improved on them. Note: it is Lightning's sanity check over all validation
photos, which other callbacks do not count as a validation.
"""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from restora.monitor import Monitor
from restora.training.record import RunRecord


class ScoreBefore(Callback):
    """Validates the initial weights before the first step, and records the scores."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.num_sanity_val_steps = math.inf

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:  # other processes hold no record of the source
            return
        scores = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.record.data["init"]["scores"] = scores
        self.record.write()


def compared(
    init: Mapping[str, Any] | None, best: Mapping[str, Any] | None, monitor: Monitor
) -> tuple[bool, str]:
    """Whether the monitored score improved, in one sentence; the sentence is empty without both scores."""
    before = ((init or {}).get("scores") or {}).get(monitor.metric)
    after = (best or {}).get(monitor.metric)
    if init is None or before is None or after is None:
        return True, ""
    scores = monitor.in_words(before), monitor.in_words(after)
    line = f"validation: {scores[0]} with the weights of {init['source']}, {scores[1]} after the training"
    if monitor.better(after, before):
        return True, line
    return False, (
        f"{line}, which is no better: use the former, or train for longer, on more photos "
        "or with other learning rates (family.optimizer)"
    )
