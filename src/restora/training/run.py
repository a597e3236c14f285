"""One training run, from objects to a complete run folder: build, log, fit, judge.

Enters: a composed configuration with `run_dir` set. Leaves: the run folder (`run.json`, `metrics.csv`,
`checkpoints/`, `images/`) and, where W&B is on, its run. Every process of a distributed run executes the same
function.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from rich.console import Console

from restora.allocator import keep_freed_memory
from restora.training.build import Parts, build_callbacks, build_parts, build_trainer
from restora.training.launch import relaunching_as_worker
from restora.training.leakage import check_leakage
from restora.training.metrics_csv import MetricsCsv
from restora.training.opening import opening_line
from restora.training.progress import TrainingProgress
from restora.training.record import RunInfo, RunRecord
from restora.training.settings import keep_lightning_quiet
from restora.training.tracking import WandbPhotos, finish_wandb, start_wandb
from restora.vocabulary import use_threads
from restora.words import worse_than_input

log = logging.getLogger(__name__)
TERMINATED = 143


def train(config: DictConfig, info: RunInfo) -> float:
    """Trains, tests and records one run; the monitored figure of its best checkpoint.

    A run that is told to stop (SIGTERM, Ctrl-C) is recorded as stopped and leaves with code 143; `resume=RUN`
    goes on.
    """
    quieten(config)
    keep_freed_memory()
    seed_everything(config.seed, workers=True, verbose=False)
    record = RunRecord(info)
    if rank_zero_only.rank == 0:
        Console(stderr=True).print(
            opening_line(config, info.network_name), markup=False, highlight=False, soft_wrap=True
        )
        record.write()
    status, error = "failed", None
    try:
        parts = build_parts(config)
        _look_for_leaks(config, parts, record)
        trainer = _trainer(config, info, record, parts)
        with relaunching_as_worker(info.folder, list(config.plugins)):
            trainer.fit(
                parts.family, parts.data, ckpt_path=_checkpoint(config, info, trainer), weights_only=False
            )
        _judge(trainer, parts, record)
        status = "finished"
    except (SIGTERMException, KeyboardInterrupt) as stop:
        status = "stopped"
        raise SystemExit(TERMINATED) from stop
    except SystemExit:  # Lightning turns Ctrl-C into an exit
        status = "stopped"
        raise
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        if rank_zero_only.rank == 0:
            record.close(status, error)
            finish_wandb(record, status)
        _forget_processes()
    _say_outcome(record)
    return float(record.data["metrics"]["best"][record.monitor.metric])


def quieten(config: DictConfig) -> None:
    """Lightning's advice about things that are meant as they are."""
    keep_lightning_quiet()
    for text in (
        ".*does not have many workers.*",  # crops are slices of a memory map
        ".*dataloader is not resumable.*",  # the sampler skips what is done
        ".*`training_step` returned `None`.*",  # a GAN steps by hand
        ".*sync_dist=True.*",  # scores are already summed over all processes
        ".*in eval mode at the start of training.*",  # the averaged copy
        ".*isinstance.treespec, LeafSpec.*",  # between Lightning and torch
        ".*`srun` command is available.*",  # a cluster's login node is not a job
        ".*smaller than the logging interval.*",  # steps are counted over all epochs
    ):
        warnings.filterwarnings("ignore", message=text)
    use_threads(config.threads)


def _look_for_leaks(config: DictConfig, parts: Parts, record: RunRecord) -> None:
    """Says and records which of the photos that judge are among the training photos."""
    if rank_zero_only.rank != 0 or not config.leakage.check:
        return
    options = config.leakage
    report = check_leakage(
        parts.data,
        testsets=options.testsets,
        folders=list(options.folders),
        max_seconds=options.max_seconds,
    )
    record.data["leakage"] = report.as_dict()
    record.write()
    style = "yellow" if report.leaks else None
    for line in report.lines():
        Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True, style=style)


def _trainer(config: DictConfig, info: RunInfo, record: RunRecord, parts: Parts) -> Trainer:
    csv = MetricsCsv(path=info.folder / "metrics.csv")
    earlier = record.data["wandb"] or {}
    options: dict[str, Any] = dict(config.logger)
    photos = options.pop("photos")
    wandb_logger = start_wandb(info, run_id=earlier.get("id"), **options)
    if wandb_logger is not None:
        run = wandb_logger.experiment
        record.data["wandb"] = {"mode": "offline" if run.offline else "online", "dir": run.dir, "id": run.id}
    label = config.name if config.name == info.network_name else f"{config.name} ({info.network_name})"
    job = info.sweep["job"] + 1 if info.sweep else 1
    callbacks = [
        record,
        TrainingProgress(label=label, monitor=record.monitor, job=job, jobs=info.jobs),
        *build_callbacks(config),
    ]
    if wandb_logger is not None:
        callbacks.append(WandbPhotos(record, photos=photos))
    loggers: list[Logger] = [csv] if wandb_logger is None else [csv, wandb_logger]
    return build_trainer(config, parts.family, callbacks, loggers, info.jobs)


def _checkpoint(config: DictConfig, info: RunInfo, trainer: Trainer) -> Path | None:
    """Where a resumed run goes on from."""
    if config.resume is None:
        return None
    path = info.folder / "checkpoints" / "last.ckpt"
    if not path.exists():
        log.warning("%s has no checkpoints/last.ckpt: the run starts anew", info.folder)
        return None
    step = torch.load(path, map_location="cpu", weights_only=False, mmap=True)["restora"]["step"]
    log.info("the run goes on after step %d", step)
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCsv):
            logger.continue_from(step)
    return path


def _judge(trainer: Trainer, parts: Parts, record: RunRecord) -> None:
    """Validates the last weights if nothing has yet, then scores the best checkpoint on the held-out
    photos."""
    last = record.data["metrics"]["last"]
    if last is None or last["step"] != parts.family.steps_done():
        trainer.validate(parts.family, parts.data, verbose=False)
    best = record.info.folder / "checkpoints" / "best.ckpt"
    if trainer.fast_dev_run or not parts.data.has_test:
        return
    chosen = best if best.exists() else None  # callbacks.best=null keeps none: the last weights
    trainer.test(parts.family, parts.data, ckpt_path=chosen, verbose=False, weights_only=False)
    record.take_test(parts.family.scores)


def _say_outcome(record: RunRecord) -> None:
    if rank_zero_only.rank != 0:
        return
    console = Console(stderr=True)
    photos, scores = record.outcome()
    figures = f"{photos} {scores['input_psnr']:.2f} -> {scores['psnr']:.2f} dB · " if "psnr" in scores else ""
    console.print(f"{figures}{_shortest(record.info.folder)}", markup=False, highlight=False, soft_wrap=True)
    if warning := worse_than_input(scores):
        console.print(f"the result is {warning}", markup=False, highlight=False, style="yellow")


def _shortest(folder: Path) -> Path:
    """As a person would type it from here."""
    folder = folder.resolve()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _forget_processes() -> None:
    """Leaves no trace of a process group, so that the next job of a sweep can open its own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if os.environ.get("LOCAL_RANK") == "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
