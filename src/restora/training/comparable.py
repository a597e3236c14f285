"""Whether the validation figures of a resumed run can be compared with those from before.

A run may be resumed with another monitor, protocol, degradation or other validation photos. The best figure
so far then measures something else, and no later checkpoint could be better than it, or each would be.
"""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from restora.data.module import PhotoData
from restora.data.store import fingerprint
from restora.evaluation.scorer import LOSS
from restora.files import json_text
from restora.monitor import Monitor
from restora.training.callbacks import BestCheckpoint
from restora.training.record import RunRecord

log = logging.getLogger(__name__)


class ComparableFigures(Callback):
    """Forgets the best figure of a resumed run if validation measures something else now.

    The digest of what it measures is in the checkpoint, so all processes of a distributed run forget alike.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.before: str | None = None
        """The digest in the checkpoint; None for a new run, and for a checkpoint of an earlier version."""
        self.now = ""

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self.now}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict["measured"]

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        photos = fingerprint(data.stores("val")) if isinstance(data, PhotoData) else ""
        self.now = measured(self.record.info.config, photos)
        if self.before in (None, self.now):
            return
        self.record.data["metrics"].update(best=None, last=None)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BestCheckpoint):
                callback.best = None
        if trainer.is_global_zero:
            log.warning(
                "validation measures something else than before: the best checkpoint is chosen among those "
                "from here on"
            )


def measured(config: Mapping[str, Any], photos: str) -> str:
    """A digest of the settings that the monitored figure depends on; `photos` is that of their pixels."""
    data = config.get("data") or {}
    parts = data.get("parts") or {}
    monitor = Monitor.of(config)
    settings = {
        "monitor": [monitor.metric, monitor.direction],
        "protocol": config.get("protocol"),
        "degradation": config.get("degradation"),
        "parts": {name: part.get("degradation") for name, part in parts.items() if part is not None},
        "data": {key: data.get(key) for key in ("channels", "val_crop", "target")},
        "limit": (config.get("trainer") or {}).get("limit_val_batches"),
        "objective": config.get("objective") if monitor.name == LOSS else None,
        "photos": photos,
    }
    return hashlib.sha256(json_text(settings, indent=None, sort_keys=True).encode()).hexdigest()[:32]
