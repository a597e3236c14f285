"""Weights & Biases: one run per training, offline by default.

It never blocks the training.

Enters: the logger's configuration and the record of a run. Leaves: curves, a best-value summary, a table of
validation photos and the best checkpoint as an artifact. Online mode is tried only if there are a key and a
connection; otherwise the run is kept offline with one warning, and `restora sync` uploads it later. Calls to
W&B are made in a separate thread (`background.py`), so a hanging server or a crashed W&B does not delay the
training, and its end by at most a minute.
"""

import contextlib
import hashlib
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
"""How long a training waits for W&B at its start; after that, W&B starts in the background."""
_FINISH_SECONDS = 60.0
_LONGEST_NAME, _LONGEST_TAG = 128, 64
"""Characters that W&B takes; it refuses a run with a longer name, group or tag."""


class WandbLog(Logger):
    """A W&B run with a given id, started in the background by `start`; `experiment` is W&B's run object."""

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
        """The run, after waiting for its start; None if W&B is not available."""
        if self.run is None:
            self.background.wait(2 * _INIT_SECONDS)
        return self.run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **options: Any) -> None:
        """Does nothing: the configuration was sent at the start of the run."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = dict(metrics) if step is None else {**metrics, "trainer/global_step": step}
        self.send(lambda run: run.log(row))

    def send(self, call: "Callable[[wandb.Run], Any]") -> None:
        """Calls a function with the run, in the background."""
        self.background.call(lambda: None if self.run is None else call(self.run))

    def finish(self, record: RunRecord, status: str) -> bool:
        """Ends the run with the held-out scores in its summary, within a minute; whether all was sent.

        The next job of a sweep starts its own run.
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
    """A logger whose run is not started yet, grouped by sweep; `run_id` is the id of a resumed run.

    A new run gets its id here, before W&B starts, so that it can be recorded even if the process is killed
    while W&B starts. None if logging is off or this is not rank 0.

    Raises `ValueError` for an unknown mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"logger.mode must be {', '.join(get_args(Mode))}; got {mode!r}")
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
        "group": _at_most(_LONGEST_NAME, group or (info.sweep["id"] if info.sweep else None)),
        "job_type": "sweep" if info.sweep else "train",
        "name": _at_most(_LONGEST_NAME, f"{info.experiment}/{info.config['name']}"),
        "tags": [_at_most(_LONGEST_TAG, tag) for tag in tags or [info.config["task"], info.network_name]],
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


def _at_most(length: int, text: str | None) -> str | None:
    """The end of a longer text, behind a hash of the whole."""
    if text is None or len(text) <= length:
        return text
    known = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{known}…{text[len(known) + 1 - length :]}"


def _begin(mode: Mode, monitor: Monitor, **arguments: Any) -> wandb.Run | None:
    """Starts the run and defines the summary of each metric."""
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
    """Gives a forked process its own temporary folder for pictures.

    W&B makes the folder on import; processes forked afterwards share it, and the first that ends removes it.
    Note: W&B has no public call for this; a version without that folder is left unchanged.
    """
    if os.getpid() == _IMPORTED_IN:
        return
    private = importlib.import_module("wandb.sdk.data_types._private")
    if hasattr(private, "MEDIA_TMP"):
        private.MEDIA_TMP.name = tempfile.mkdtemp("wandb-media")


def _init(mode: Mode, **arguments: Any) -> wandb.Run | None:
    """`wandb.init`, offline if online mode fails; None if that fails too."""
    settings = wandb.Settings(init_timeout=_INIT_SECONDS, console="off", silent=True)
    if Path.cwd().is_relative_to(arguments["dir"]):  # git runs commands from a repository's own settings
        settings.disable_git = True
    if hasattr(settings, "finish_timeout_raises"):  # then it writes unsent data to disk and ends
        settings.finish_timeout, settings.finish_timeout_raises = 0.75 * _FINISH_SECONDS, True
    try:
        run = wandb.init(mode=mode, settings=settings, **arguments)
        _leave_imports_alone(run)
        return run
    except Exception as error:  # errors of wandb, requests and the OS
        if mode == "offline":
            log.warning("W&B cannot write its run (%s): this run is logged to metrics.csv only", error)
            return None
        log.warning("W&B: online mode failed (%s); this run is kept offline", first_line(error))
        end_service()  # a teardown would hang too
        return _init("offline", **arguments)


def _leave_imports_alone(run: wandb.Run) -> None:
    """Removes W&B's import hooks.

    They report libraries imported during a run from inside the import, which would fail after W&B's process
    has died. Note: W&B has no setting for this; a version without these hooks is left unchanged.
    """
    with contextlib.suppress(ImportError, AttributeError):
        hooks = importlib.import_module("wandb.sdk.lib.import_hooks")
        telemetry = importlib.import_module("wandb.sdk.lib.telemetry")
        for library in telemetry.list_telemetry_imports():
            hooks.unregister_post_import_hook(library, run.id)


class WandbPhotos(Callback):
    """Logs validation photos to W&B.

    It logs a photo at each validation, and at the end a table and the best checkpoint.

    The first `photos` validation photos are used, each reduced to `longest_side` pixels. Under DDP, rank 0
    only has its own share of the photos.
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
            kinds = (batch.middle[index], outputs["restored"][index], batch.clean[index])
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
            except Exception as error:  # e.g. a server without file storage; the curves are kept
                log.warning("W&B did not accept %s: %s", best, first_line(error))

        logger.send(send)

    def _small(self, photo: Tensor) -> Image.Image:
        picture = to_image(photo)
        picture.thumbnail((self.longest_side, self.longest_side))
        return picture


def _logger(trainer: Trainer) -> WandbLog | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbLog)), None)
