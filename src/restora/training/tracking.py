"""Weights & Biases: one run per training, offline unless asked otherwise.

It is never in the way of the training.

Enters: the logger's configuration and what a run records. Leaves: curves, a best-value summary, a table of
validation photos and the best checkpoint as an artifact. Online mode is tried only where a key and a
connection are found; otherwise the run is kept offline with one line that says so, and `restora sync` sends
it later. Every call into W&B is made in a thread of its own (`background.py`), so that a server that hangs,
or a W&B that dies, costs the training nothing and its end a minute.
"""

import contextlib
import importlib
import logging
import os
import secrets
import shlex
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import wandb
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from PIL import Image
from torch import Tensor

from restora.connection import wandb_obstacle
from restora.monitor import Monitor
from restora.training.background import Background, end_service, first_line
from restora.training.callbacks import to_image
from restora.training.devices import own_rank
from restora.training.record import RunInfo, RunRecord
from restora.types import Batch

log = logging.getLogger(__name__)
_IMPORTED_IN = os.getpid()

Mode = Literal["offline", "online", "disabled"]
_INIT_SECONDS = 15.0
_START_SECONDS = 5.0
"""How long a training waits for W&B to be ready; after that it starts, and W&B comes when it can."""
_FINISH_SECONDS = 60.0


class WandbLog(Logger):
    """A run of W&B's by its id, which `start` begins in the background; `experiment` is W&B's own object."""

    def __init__(
        self, *, identity: str, mode: Mode, begin: "Callable[[], wandb.Run | None]", advice: str
    ) -> None:
        super().__init__()
        self.identity, self.mode, self.begin = identity, mode, begin
        self.run: wandb.Run | None = None
        self.background = Background(advice=advice)

    def start(self) -> None:
        self.background.call(lambda: setattr(self, "run", self.begin()))
        self.background.wait(_START_SECONDS)

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str | None:
        return self.identity

    @property
    def experiment(self) -> "wandb.Run | None":
        """The run, waited for as long as it may take to begin; None where W&B is not available."""
        if self.run is None:
            self.background.wait(2 * _INIT_SECONDS)
        return self.run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **options: Any) -> None:
        """The configuration went with the start of the run."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = dict(metrics) if step is None else {**metrics, "trainer/global_step": step}
        self.send(lambda run: run.log(row))

    def send(self, call: "Callable[[wandb.Run], Any]") -> None:
        """Makes a call of the run in the background."""
        self.background.call(lambda: None if self.run is None else call(self.run))

    def finish(self, record: RunRecord, status: str) -> bool:
        """Ends the run with the held-out scores in its summary, within a minute; whether all of it was taken.

        The next job of a sweep begins its own.
        """
        scores = record.data["test"] or {}
        summary = {f"test/{key}": value for key, value in scores.items() if key not in ("images", "seconds")}

        def end(run: wandb.Run) -> None:
            run.summary.update(summary)
            run.finish(exit_code=0 if status == "finished" else 1)

        self.send(end)
        return self.background.close(_FINISH_SECONDS) and self.run is not None


def wandb_log(
    info: RunInfo,
    *,
    mode: Mode = "offline",
    project: str = "restora",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    run_id: str | None = None,
) -> WandbLog | None:
    """A logger whose run is to be started, grouped by sweep; `run_id` is that of the run which goes on.

    A new run has an id before W&B hears of it, so that it can be noted: W&B may take its time, and the run
    may be killed meanwhile. None where logging is off or this is not the first process.

    Raises `ValueError` for an unknown mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"logger.mode is {', '.join(get_args(Mode))}; got {mode!r}")
    if mode == "disabled" or own_rank() != 0:
        return None
    advice = f"Send the run later with: restora sync {shlex.quote(str(info.folder))}"
    if mode == "online" and (obstacle := wandb_obstacle()):
        log.warning("W&B: %s; this run is kept offline. %s", obstacle, advice)
        mode = "offline"
    folder = info.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")  # artifact staging, else in the home folder
    identity = run_id or (None if info.sweep else os.environ.get("WANDB_RUN_ID")) or secrets.token_hex(4)
    arguments: dict[str, Any] = {
        "project": project,
        "entity": entity,
        "group": group or (info.sweep["id"] if info.sweep else None),
        "job_type": "sweep" if info.sweep else "train",
        "name": f"{info.experiment}/{info.config['name']}",
        "tags": tags or [info.config["task"], info.network_name],
        "config": info.config,
        "dir": str(folder),
        "id": identity,
        "resume": "allow" if run_id else None,
    }
    return WandbLog(
        identity=identity,
        mode=mode,
        begin=lambda: _begin(mode, Monitor.of(info.config), **arguments),
        advice=advice,
    )


def _begin(mode: Mode, monitor: Monitor, **arguments: Any) -> wandb.Run | None:
    """The run, with what its summary keeps of each metric."""
    _keep_pictures_apart()
    run = _init(mode, **arguments)
    if run is None:
        return None
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    for metric, direction in {
        "val/psnr": "max",
        "val/ssim": "max",
        monitor.metric: monitor.direction,
    }.items():
        run.define_metric(metric, summary=direction)
    run.define_metric("train/loss", summary="min")
    return run


def _keep_pictures_apart() -> None:
    """Gives a forked process a temporary folder for pictures of its own.

    W&B makes one when it is imported; processes that are forked afterwards share it, and the first that ends
    removes it. Note: W&B has no call for it; a version without that folder is left alone.
    """
    if os.getpid() == _IMPORTED_IN:
        return
    private = importlib.import_module("wandb.sdk.data_types._private")
    if hasattr(private, "MEDIA_TMP"):
        private.MEDIA_TMP.name = tempfile.mkdtemp("wandb-media")


def _init(mode: Mode, **arguments: Any) -> wandb.Run | None:
    """`wandb.init`, offline where online mode fails; None where not even that can be written."""
    settings = wandb.Settings(init_timeout=_INIT_SECONDS, console="off", silent=True)
    if Path.cwd().is_relative_to(arguments["dir"]):  # git runs what a repository's own settings say
        settings.disable_git = True
    if hasattr(settings, "finish_timeout_raises"):  # then it writes what it could not send, and ends itself
        settings.finish_timeout, settings.finish_timeout_raises = 0.75 * _FINISH_SECONDS, True
    try:
        run = wandb.init(mode=mode, settings=settings, **arguments)
        _leave_imports_alone(run)
        return run
    except Exception as error:  # wandb raises its own, requests' and OS errors here
        if mode == "offline":
            log.warning("W&B cannot write its run (%s): this run is logged to metrics.csv only", error)
            return None
        log.warning("W&B: online mode failed (%s); this run is kept offline", first_line(error))
        end_service()  # a teardown would wait for what hangs
        return _init("offline", **arguments)


def _leave_imports_alone(run: wandb.Run) -> None:
    """Takes away what W&B does inside of imports.

    It reports the libraries that are imported while a run goes on, from inside the import, which fails where
    W&B's process has died. Note: W&B has no setting for it; a version without these hooks is left alone.
    """
    with contextlib.suppress(ImportError, AttributeError):
        hooks = importlib.import_module("wandb.sdk.lib.import_hooks")
        telemetry = importlib.import_module("wandb.sdk.lib.telemetry")
        for library in telemetry.list_telemetry_imports():
            hooks.unregister_post_import_hook(library, run.id)


class WandbPhotos(Callback):
    """Shows validation photos in W&B.

    Triptychs as training goes, and at the end a table and the best checkpoint.

    `photos` of the validation photos are kept, each reduced to `longest_side` pixels for the screen. The
    first process sees only its own share of the photos under DDP.
    """

    def __init__(self, record: RunRecord, *, photos: int = 4, longest_side: int = 512) -> None:
        self.record, self.photos, self.longest_side = record, photos, longest_side
        self.rows: list[tuple[str, list[Image.Image], float]] = []

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_index: int,
        dataloader_idx: int = 0,
    ) -> None:
        if _logger(trainer) is None or trainer.sanity_checking or batch.clean is None:
            return
        for index, name in enumerate(batch.names[: self.photos - len(self.rows)]):
            kinds = (batch.degraded[index], outputs["restored"][index], batch.clean[index])
            self.rows.append(
                (name, [self._small(photo) for photo in kinds], outputs["scores"][index]["psnr"])
            )

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        logger = _logger(trainer)
        if logger is None or trainer.sanity_checking or not self.rows:
            return
        name, (_, restored, _), psnr = self.rows[0]
        caption = f"{name}: {psnr:.2f} dB"
        logger.send(lambda run: run.log({"val/photo": wandb.Image(restored, caption=caption)}, commit=False))

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        logger, rows = _logger(trainer), self.rows
        if logger is None:
            return
        best = self.record.info.folder / "checkpoints" / "best.ckpt"
        scores = self.record.data["metrics"]["best"]

        def send(run: wandb.Run) -> None:
            if rows:
                table = wandb.Table(columns=["photo", "degraded", "restored", "clean", "psnr"])
                for name, photos, psnr in rows:
                    table.add_data(name, *[wandb.Image(photo) for photo in photos], psnr)
                run.log({"validation photos": table})
            if not best.exists():
                return
            try:
                artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model", metadata=scores)
                artifact.add_file(str(best), policy="immutable", skip_cache=True)
                run.log_artifact(artifact, aliases=["best"])
            except Exception as error:  # a server that keeps no files; the curves are there
                log.warning("W&B does not take %s: %s", best, first_line(error))

        logger.send(send)

    def _small(self, photo: Tensor) -> Image.Image:
        picture = to_image(photo)
        picture.thumbnail((self.longest_side, self.longest_side))
        return picture


def _logger(trainer: Trainer) -> WandbLog | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLog)), None)
