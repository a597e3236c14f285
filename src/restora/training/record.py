"""run.json: the configuration, cost and results of a run.

It is readable without this package, W&B or a checkpoint.
"""

import logging
import os
import platform
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from restora import __version__
from restora.arguments import fits
from restora.artifact.measuring import processor
from restora.data.module import PhotoData
from restora.evaluation.scorer import means
from restora.families.base import Family
from restora.families.share import share_here
from restora.files import read_json, sync, write_json
from restora.monitor import Monitor
from restora.networks.cost import count_macs, count_parameters
from restora.redaction import redacted
from restora.run_state import check_place, this_process
from restora.training.instants import Instant, instant, seconds_between
from restora.training.metrics_csv import MetricsCsv
from restora.words import AGAINST_NOISY, NOISY_REFERENCE

FORMAT = 2
_STEP_TIMES_KEPT = 2000
_HEARTBEAT_SECONDS = 10.0
log = logging.getLogger(__name__)


@dataclass
class RunInfo:
    """A run as known to the command that starts it. `config` is a resolved plain dict."""

    folder: Path
    config: dict[str, Any]
    command: str = ""
    """The command that repeats the run from `cwd`; empty if no command started it."""
    overrides: list[str] = field(default_factory=list)
    cwd: str | None = None
    experiment: str = "adhoc"
    network_name: str = ""
    sweep: dict[str, Any] | None = None
    jobs: int = 1
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """For a resumed run: the keys that differ, with their earlier and their current values."""
    precision: str | None = None
    """What the run computes in, by Lightning's name; None until it starts."""
    begun: bool = False
    """Whether training has started."""


_COUNTED = ("fit_seconds", "steps", "samples")
_HISTORY: dict[str, Callable[[Any], bool]] = {
    "started": lambda value: isinstance(value, str),
    "metrics": lambda value: (
        fits(value, dict[str, dict[str, Any] | None]) and value.keys() >= {"best", "last"}
    ),
    "cost": lambda value: (
        fits(value, dict[str, float | None]) and all(isinstance(value.get(k), int | float) for k in _COUNTED)
    ),
    "wandb": lambda value: isinstance(value, dict),
    "photos": lambda value: isinstance(value, dict),
    "changes": lambda value: fits(value, list[dict[str, Any]]),
    "init": lambda value: isinstance(value, dict),
}
"""What a resumed run takes from its earlier record, and whether a value can be that."""


class RunRecord(Callback):
    """Keeps `run.json` up to date from the first second.

    It is written at the start, after each validation and at the end.

    It also adds to each checkpoint the data needed to use it without its run folder (key "restora").
    """

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.monitor = Monitor.of(info.config)
        self.path = info.folder / "run.json"
        self.steps = StepTimes()
        self.samples = 0
        self.fit_seconds_before = 0.0
        self.started = time.monotonic()
        self._written = time.monotonic()
        self.data: dict[str, Any] = self._opening()

    def _opening(self) -> dict[str, Any]:
        config = self.info.config
        opening: dict[str, Any] = {
            "format": FORMAT,
            "name": config["name"],
            "experiment": self.info.experiment,
            "task": config["task"],
            "family": None,
            "network": self.info.network_name,
            "status": "running",
            "error": None,
            "command": self.info.command,
            "cwd": self.info.cwd,
            "overrides": self.info.overrides,
            "started": _now(),
            "finished": None,
            "seed": config["seed"],
            "monitor": asdict(self.monitor),
            "protocol": None,
            "reference": None,
            "git": git(),
            "versions": versions(),
            "machine": machine(),
            "config": config,
            "precision": self.info.precision,
            "init": None,
            "leakage": None,
            "parameters": None,
            "macs_256": None,
            "cost": {"fit_seconds": 0.0, "steps": 0, "samples": 0, "step_ms": None},
            "metrics": {"best": None, "last": None},
            "test": None,
            "checkpoints": {"best": None, "last": None},
            "sweep": self.info.sweep,
            "wandb": None,
            "photos": None,
            "changes": [],
            "process": this_process(),
        }
        if earlier := self._earlier():
            opening |= earlier
            self.fit_seconds_before = opening["cost"]["fit_seconds"]
            self.samples = opening["cost"]["samples"]
        return opening

    def _earlier(self) -> dict[str, Any]:
        """The history in the earlier record of a resumed run; empty if there is no readable one."""
        if not self.path.exists():
            return {}
        try:
            earlier = read_json(self.path)
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read (%s): its history is lost", self.path, error)
            return {}
        found = {key: value for key in _HISTORY if isinstance(earlier, dict) and (value := earlier.get(key))}
        damaged = [key for key, value in found.items() if not _HISTORY[key](value)]
        if damaged or not isinstance(earlier, dict):
            what = ", ".join(damaged) or "everything"
            log.warning("%s is damaged: %s in it cannot be read and is left out", self.path, what)
        return {key: value for key, value in found.items() if key not in damaged}

    def goes_on(self, from_checkpoint: Mapping[str, Any] | None, changed: Mapping[str, Any]) -> None:
        """Resets the history to the checkpoint's step, or clears it, and notes changed settings."""
        step = 0
        if from_checkpoint is None:
            self.data.update(metrics={"best": None, "last": None}, changes=[], started=_now())
            self.samples, self.fit_seconds_before = 0, 0.0
        else:
            step = int(from_checkpoint["step"])
            self.samples = int(from_checkpoint.get("samples", self.samples))
        if changed:
            keys = {key: {"from": then, "to": now} for key, (then, now) in changed.items()}
            self.data["changes"] = [*self.data["changes"], {"step": step, "keys": keys}]

    def queue(self, *, begun: bool = False) -> None:
        """Writes the record of a run that has not started, or of one that has `begun` and lost its record."""
        self.data.update(status="stopped" if begun else "queued", started=None, process=None)
        write_json(self.path, self.data)

    def write(self) -> None:
        """Writes `run.json`. Raises `Gone` if the folder has been moved."""
        check_place(self.path.parent)
        self.data["process"] = this_process()
        self._written = time.monotonic()
        write_json(self.path, self.data)
        if self.data["status"] != "running":  # the final status is synced to disk
            sync(self.path.parent)

    def _heartbeat(self, trainer: Trainer, module: LightningModule | None = None) -> None:
        """Updates the record regularly, to show that the run is alive and its progress."""
        if trainer.is_global_zero and time.monotonic() - self._written > _HEARTBEAT_SECONDS:
            if module is not None:
                self._take_cost(module)
            self.write()

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Family)
        network = module.network
        self.data["family"] = module.name
        self.data["protocol"] = asdict(module.scorer.protocol)
        self.data["reference"] = _reference(trainer, module)
        self.data["parameters"] = count_parameters(network)
        self.data["macs_256"] = count_macs(network, height=256, width=256)
        self.started = time.monotonic()
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.begin()
        if trainer.is_global_zero:
            self.write()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.info.begun = True

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int
    ) -> None:
        self.steps.begin(trainer.strategy.root_device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_index: int,
    ) -> None:
        self.samples += len(batch.names) * trainer.world_size
        self.steps.end(trainer.strategy.root_device)
        self._heartbeat(trainer, module)

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        self._heartbeat(trainer)

    def on_test_batch_end(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        self._heartbeat(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        assert isinstance(module, Family)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        metrics["step"] = module.steps_done()
        self.data["metrics"]["last"] = metrics
        best = self.data["metrics"]["best"]
        name = self.monitor.metric
        if name in metrics and self.monitor.better(metrics[name], None if best is None else best.get(name)):
            self.data["metrics"]["best"] = metrics
        self._take_cost(module)
        if trainer.is_global_zero:
            self.write()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if trainer.training and self.info.begun:  # stopped or failed between two validations
            self._take_cost(module)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._take_cost(module)
        folder = self.info.folder / "checkpoints"
        for kind in ("best", "last"):
            if (folder / f"{kind}.ckpt").exists():
                self.data["checkpoints"][kind] = f"checkpoints/{kind}.ckpt"
        if trainer.is_global_zero:
            self.write()

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(module, Family)
        config = self.info.config
        network = dict(config["network"])
        checkpoint["restora"] = {
            "format": FORMAT,
            "network": {"name": network.pop("_target_"), "arguments": network},
            "family": module.name,
            "task": config["task"],
            "name": config["name"],
            "degradation": config["degradation"],
            "reference": self.data["reference"],
            "plugins": list(config.get("plugins") or []),
            "evaluation": {
                "local_converter": getattr(module, "local_converter", None),
                "protocol": asdict(module.scorer.protocol),
            },
            "step": module.steps_done(),
            "samples": self.samples,
            "metrics": {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")},
        }

    def take_test(self, scores: list[dict[str, Any]]) -> None:
        """Records the per-image scores of the held-out photos and their means."""
        self.data["test"] = {"images": scores, **means(scores)}

    def best(self) -> float | None:
        """The best monitored score of validation so far."""
        return (self.data["metrics"]["best"] or {}).get(self.monitor.metric)

    def outcome(self) -> tuple[str, dict[str, Any]]:
        """The kind of photos that the reported scores are for, in words, and the scores.

        These are the held-out photos, or else the validation photos.
        """
        noisy = f" ({AGAINST_NOISY})" if self.data["reference"] == NOISY_REFERENCE else ""
        if self.data["test"]:
            return f"held-out photos{noisy}", self.data["test"]
        best = self.data["metrics"]["best"] or {}
        return f"validation photos{noisy}", {
            key.removeprefix("val/"): value for key, value in best.items() if key.startswith("val/")
        }

    def close(self, status: str, error: str | None = None) -> None:
        self.data.update(status=status, error=None if error is None else redacted(error), finished=_now())
        self.write()

    def _take_cost(self, module: LightningModule) -> None:
        assert isinstance(module, Family)
        self.data["cost"] = {
            "fit_seconds": round(self.fit_seconds_before + time.monotonic() - self.started, 2),
            "steps": module.steps_done(),
            "samples": self.samples,
            "step_ms": self.steps.median(),
            "share": round(share_here(module.trainer), 4),
        }


class StepTimes:
    """The times of a run's first training steps, read when they have ended, so that the host never waits."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._begun: Instant | None = None
        self._queued: deque[tuple[Instant, Instant]] = deque()

    def begin(self, device: torch.device) -> None:
        self._begun = instant(device) if self._kept() < _STEP_TIMES_KEPT else None

    def end(self, device: torch.device) -> None:
        if self._begun is not None:
            self._queued.append((self._begun, instant(device)))

    def median(self) -> float | None:
        """Milliseconds of the steps that have ended; None if none has."""
        while self._queued and (taken := seconds_between(*self._queued[0])) is not None:
            self.milliseconds.append(1000 * taken)
            self._queued.popleft()
        return round(statistics.median(self.milliseconds), 2) if self.milliseconds else None

    def _kept(self) -> int:
        return len(self.milliseconds) + len(self._queued)


def _reference(trainer: Trainer, module: Family) -> str | None:
    """What the figures compare with: clean photos, other noisy versions of the photos, or nothing (None)."""
    data: Any = getattr(trainer, "datamodule", None)
    if not isinstance(data, PhotoData) or not data.has_clean:
        return None
    expects_noisy = any(getattr(part, "expects_noisy_partners", False) for part in module.objectives.values())
    return NOISY_REFERENCE if data.source.partners_may_be_noisy and expects_noisy else "clean"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python, torch and restora."""
    return {"python": platform.python_version(), "torch": torch.__version__, "restora": __version__}


@cache
def git() -> dict[str, Any]:
    """The commit of the running code, if it is a git checkout."""
    here = Path(__file__).resolve().parents[3]
    if not (here / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def machine() -> dict[str, Any]:
    """Names of the processor and the GPU, the number of cores, and the host."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": processor(), "cores": os.cpu_count(), "gpu": gpu, "host": platform.node()}
