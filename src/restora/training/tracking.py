"""Weights & Biases: one run per training, offline unless asked otherwise, and never in the way of the
training.

Enters: the logger's configuration and what a run records. Leaves: curves, a best-value summary, a table of
validation photos and the best checkpoint as an artifact. Online mode is tried only where a key and a
connection are found; otherwise the run is kept offline with one line that says so, and `wandb sync` sends it
later.
"""

import logging
import netrc
import os
import socket
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlparse

import wandb
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from restora.monitor import Monitor
from restora.training.callbacks import to_image
from restora.training.record import RunInfo, RunRecord
from restora.types import Batch

log = logging.getLogger(__name__)

Mode = Literal["offline", "online", "disabled"]
_CONNECT_SECONDS = 3.0
_INIT_SECONDS = 15.0


def start_wandb(
    info: RunInfo,
    *,
    mode: Mode = "offline",
    project: str = "restora",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    run_id: str | None = None,
) -> WandbLogger | None:
    """A logger with a live run, grouped by sweep; None where logging is off or this is not the first process.

    Raises `ValueError` for an unknown mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"logger.mode is {', '.join(get_args(Mode))}; got {mode!r}")
    if mode == "disabled" or rank_zero_only.rank != 0:
        return None
    if mode == "online" and (obstacle := _obstacle()):
        log.warning(
            "W&B: %s; this run is kept offline. Send it later with: wandb sync %s", obstacle, info.folder
        )
        mode = "offline"
    folder = info.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")  # artifact staging, else in the home folder
    run = _init(
        mode,
        project=project,
        entity=entity,
        group=group or (info.sweep["id"] if info.sweep else None),
        job_type="sweep" if info.sweep else "train",
        name=f"{info.experiment}/{info.config['name']}",
        tags=tags or [info.config["task"], info.network_name],
        config=info.config,
        dir=str(folder),
        id=run_id,
        resume="allow" if run_id else None,
    )
    if run is None:
        return None
    monitor = Monitor.of(info.config)
    for metric, direction in {
        "val/psnr": "max",
        "val/ssim": "max",
        monitor.metric: monitor.direction,
    }.items():
        run.define_metric(metric, summary=direction)
    run.define_metric("train/loss", summary="min")
    return WandbLogger(experiment=run, log_model=False)


def _init(mode: Mode, **arguments: Any) -> wandb.Run | None:
    """`wandb.init`, offline where online mode fails; None where not even that can be written."""
    settings = wandb.Settings(init_timeout=_INIT_SECONDS, console="off", silent=True)
    try:
        return wandb.init(mode=mode, settings=settings, **arguments)
    except Exception as error:  # wandb raises its own, requests' and OS errors here
        if mode == "offline":
            log.warning("W&B cannot write its run (%s): this run is logged to metrics.csv only", error)
            return None
        log.warning("W&B: online mode failed (%s); this run is kept offline", _first_line(error))
        wandb.teardown()
        return _init("offline", **arguments)


def _obstacle() -> str | None:
    """Why online mode cannot work, found in seconds; None if nothing speaks against it."""
    url = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = url.hostname or "api.wandb.ai"
    if not os.environ.get("WANDB_API_KEY") and not _has_netrc_key(host):
        return f"no API key for {host} (run `wandb login` or set WANDB_API_KEY)"
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return f"{host} cannot be reached ({error})"
    return None


def _has_netrc_key(host: str) -> bool:
    for name in (".netrc", "_netrc"):
        path = Path.home() / name
        if path.exists():
            try:
                if netrc.netrc(str(path)).authenticators(host):
                    return True
            except (netrc.NetrcParseError, OSError):
                continue
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class WandbPhotos(Callback):
    """Shows validation photos in W&B: triptychs as training goes, and at the end a table and the best
    checkpoint.

    `photos` of the validation photos are kept, each reduced to `longest_side` pixels for the screen. The
    first process sees only its own share of the photos under DDP.
    """

    def __init__(self, record: RunRecord, *, photos: int = 4, longest_side: int = 512) -> None:
        self.record, self.photos, self.longest_side = record, photos, longest_side
        self.rows: list[list[Any]] = []

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
        if _run(trainer) is None or trainer.sanity_checking or batch.clean is None:
            return
        for index, name in enumerate(batch.names[: self.photos - len(self.rows)]):
            kinds = (batch.degraded[index], outputs["restored"][index], batch.clean[index])
            self.rows.append(
                [name, *[self._small(photo) for photo in kinds], outputs["scores"][index]["psnr"]]
            )

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        run = _run(trainer)
        if run is None or trainer.sanity_checking or not self.rows:
            return
        name, _, restored, _, psnr = self.rows[0]
        run.log({"val/photo": wandb.Image(restored, caption=f"{name}: {psnr:.2f} dB")}, commit=False)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        run = _run(trainer)
        if run is None:
            return
        table = wandb.Table(columns=["photo", "degraded", "restored", "clean", "psnr"])
        for name, *photos, psnr in self.rows:
            table.add_data(name, *[wandb.Image(photo) for photo in photos], psnr)
        run.log({"validation photos": table})
        best = self.record.info.folder / "checkpoints" / "best.ckpt"
        if best.exists():
            artifact = wandb.Artifact(
                f"checkpoint-{run.id}", type="model", metadata=self.record.data["metrics"]["best"]
            )
            artifact.add_file(str(best), policy="immutable", skip_cache=True)
            run.log_artifact(artifact, aliases=["best"])

    def _small(self, photo: Tensor) -> Any:
        picture = to_image(photo)
        picture.thumbnail((self.longest_side, self.longest_side))
        return picture


def _run(trainer: Trainer) -> Any:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            return logger.experiment
    return None


def finish_wandb(record: RunRecord, status: str) -> None:
    """Closes this process's run, with the held-out scores in its summary; the next job of a sweep opens its
    own."""
    run = wandb.run
    if run is None:
        return
    if record.data["test"]:
        run.summary.update(
            {
                f"test/{key}": value
                for key, value in record.data["test"].items()
                if key not in ("images", "seconds")
            }
        )
    run.finish(exit_code=0 if status == "finished" else 1)
