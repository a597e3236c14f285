"""One training run, from objects to a complete run folder: build, log, fit, evaluate.

Enters: a composed configuration with `run_dir` set. Leaves: the run folder (`run.json`, `metrics.csv`,
`checkpoints/`, `images/`) and, where W&B is on, its run. Every process of a distributed run executes the same
function.
"""

import logging
import math
import os
import re
import shlex
import shutil
import sys
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console

from restora.allocator import keep_freed_memory
from restora.artifact.checkpoint import read_checkpoint
from restora.config import ConfigError
from restora.data.sources import SPLITS
from restora.data.store import fingerprint
from restora.degradations.compose.composition import OnDemand
from restora.files import clear_drafts, sync
from restora.redaction import redacted
from restora.run_state import PRUNED, Gone, sole_run
from restora.training.before_training import ScoreBefore, compared
from restora.training.build import Parts, build_callbacks, build_parts, build_trainer
from restora.training.callbacks import NonFinite
from restora.training.command import folders_in
from restora.training.comparable import ComparableFigures
from restora.training.devices import own_rank
from restora.training.launch import (
    ProcessFailed,
    Workers,
    cause_of,
    forget_failures,
    note_failure,
    use_workers,
)
from restora.training.leakage import check_leakage
from restora.training.metrics_csv import MetricsCsv
from restora.training.on_demand import FollowValidation
from restora.training.opening import opening_line
from restora.training.progress import TrainingProgress
from restora.training.record import RunInfo, RunRecord
from restora.training.resuming import TYPED_IN, ConfiguredOptimizer, find_checkpoint
from restora.training.settings import keep_lightning_quiet, slow_precision
from restora.training.stopping import StopAtSignal, Stopped
from restora.training.tracking import WandbLog, WandbPhotos, wandb_log
from restora.vocabulary import AUTO, use_threads
from restora.words import worse_than_input

log = logging.getLogger(__name__)


def train(config: DictConfig, info: RunInfo) -> float:
    """Trains, tests and records one run; returns the best monitored validation score.

    A run that is asked to stop (SIGTERM, Ctrl-C, SIGHUP) is recorded as stopped and exits with 128 plus the
    signal number; `resume=RUN` resumes it. Raises `Occupied` if another process trains in the folder.
    """
    quieten(config)
    keep_freed_memory()
    seed_everything(config.seed, workers=True, verbose=False)
    first, stopping = own_rank() == 0, StopAtSignal()
    with sole_run(info.folder) if first else nullcontext(), stopping.listening():
        if first:
            clear_drafts(info.folder, below=True)
            (info.folder / PRUNED).unlink(missing_ok=True)
        record = RunRecord(info)
        status, error, sent = "failed", None, None
        workers: Workers | None = None
        try:
            checkpoint = _checkpoint(config, info, record, first)
            if first:
                decided = info.config["trainer"]["precision"] == AUTO
                _say(opening_line(config, info.network_name, decided=decided))
                if slow := slow_precision(config):
                    log.warning(slow)
                record.write()
                forget_failures(info.folder)
            sent = _start_wandb(config, info, record)
            parts = build_parts(config, goes_on=checkpoint is not None)
            _say_initial(parts, record)
            _compare_photos(parts, record, info)
            if first:
                parts.data.check_sizes()  # before the longer search
                _say_unseen_mask(parts)
            _look_for_leaks(config, parts, record)
            trainer = _trainer(config, info, record, parts, stopping, sent, goes_on=checkpoint is not None)
            _take_back(trainer, record, checkpoint)
            path = None if checkpoint is None else checkpoint[0]
            workers = use_workers(trainer, info.folder, list(config.plugins), lambda e: _say_lost(record, e))
            trainer.fit(parts.family, parts.data, ckpt_path=path, weights_only=True)
            _score(trainer, parts, record)
            status = "finished"
        except Stopped as stop:
            status = "stopped"
            if first:
                _say_stopped(record)
            raise SystemExit(stop.exit_code) from stop
        except SystemExit:  # of a process that another one has ended
            status = "stopped"
            raise
        except BaseException as failure:
            if not first:
                note_failure(info.folder, own_rank(), failure)
            cause = cause_of(failure, info.folder, workers) if first else failure
            error = cause.summary if isinstance(cause, ProcessFailed) else f"{type(cause).__name__}: {cause}"
            if cause is failure:
                raise
            raise cause from None
        finally:
            if status == "finished":
                _forget_processes()
            if workers is not None:
                workers.end(finished=status == "finished")
            if first:
                _close(record, status, error, sent)
            _forget_processes()
    _say_outcome(record)
    return float(record.data["metrics"]["best"][record.monitor.metric])


def _say_lost(record: RunRecord, failure: ProcessFailed) -> None:
    """Records the failure of another process, as a last action while this one hangs waiting for it."""
    Console(stderr=True).print(str(failure), markup=False, highlight=False, soft_wrap=True)
    with suppress(OSError):
        record.close("failed", failure.summary)


def _close(record: RunRecord, status: str, error: str | None, sent: WandbLog | None) -> None:
    """Records how the run ended, if possible also on a full disk, and ends its W&B run."""
    try:
        record.close(status, error)
    except (OSError, Gone) as failure:
        log.warning("%s cannot be written (%s): the run will be shown as dead", record.path, failure)
    if sent is None:
        return
    record.data["wandb"] = _wandb_entry(sent, complete=sent.finish(record, status))
    with suppress(OSError, Gone):
        record.write()


def _start_wandb(config: DictConfig, info: RunInfo, record: RunRecord) -> WandbLog | None:
    """Records and starts the W&B run, if enabled; it starts in the background."""
    options: dict[str, Any] = dict(config.logger)
    options.pop("photos")
    sent = wandb_log(info, run_id=(record.data["wandb"] or {}).get("id"), **options)
    if sent is None:
        return None
    record.data["wandb"] = _wandb_entry(sent, complete=False)
    record.write()
    sent.start()
    record.data["wandb"] = _wandb_entry(sent, complete=False)
    return sent


def _wandb_entry(sent: WandbLog, *, complete: bool) -> dict[str, Any]:
    """The entry of run.json on the W&B run; `complete` if an online run was uploaded completely."""
    run = sent.run
    mode = sent.mode if run is None else "offline" if run.offline else "online"
    return {
        "mode": mode,
        "dir": None if run is None else run.dir,
        "id": sent.identity,
        "complete": complete and mode == "online",
    }


def quieten(config: DictConfig) -> None:
    """Silences warnings about settings that are intended, or that have a line of their own."""
    keep_lightning_quiet()
    for text in (
        ".*does not have many workers.*",  # crops are slices of a memory map
        ".*worker processes in total.*",  # the data says so, with the setting's name
        ".*dataloader is not resumable.*",  # the sampler skips what is done
        ".*`training_step` returned `None`.*",  # a GAN steps by hand
        ".*sync_dist=True.*",  # scores are already summed over all processes
        ".*in eval mode at the start of training.*",  # the averaged copy
        ".*isinstance.treespec, LeafSpec.*",  # between Lightning and torch
        ".*smaller than the logging interval.*",  # steps are counted over all epochs
    ):
        warnings.filterwarnings("ignore", message=text)
    for handler in logging.getLogger().handlers:
        handler.handleError = _leave_out_of_log  # type: ignore[method-assign]
    use_threads(config.threads)


def _leave_out_of_log(record: logging.LogRecord) -> None:
    """What logging does with a line that cannot be written: a full disk is said once, by the error itself."""
    if not isinstance(sys.exc_info()[1], OSError):
        logging.Handler().handleError(record)


def _say(line: str, *, style: str | None = None) -> None:
    """Prints a line: a terminal breaks it between words, a file holds it whole."""
    console = Console(stderr=True)
    console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal, style=style)


def _say_initial(parts: Parts, record: RunRecord) -> None:
    """Prints and records the source of the initial weights."""
    if own_rank() != 0 or parts.initial is None:
        return
    record.data["init"] = parts.initial.as_dict()
    record.write()
    for line in parts.initial.lines():
        _say(line)


def _say_unseen_mask(parts: Parts) -> None:
    """Says that a network does not get the mask of known pixels which the degradation has."""
    if 1 in parts.data.undamaged and not parts.network.condition_channels:
        name = type(parts.network).__name__
        line = (
            f"{name} does not see the mask of the lost pixels and has to find them itself: networks with a "
            "condition, such as network=filling_drunet, get it"
        )
        _say(line, style="yellow")


def _look_for_leaks(config: DictConfig, parts: Parts, record: RunRecord) -> None:
    """Prints and records which evaluation photos are also among the training photos."""
    if own_rank() != 0 or not config.leakage.check:
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
        _say(line, style=style)


def _trainer(
    config: DictConfig,
    info: RunInfo,
    record: RunRecord,
    parts: Parts,
    stopping: StopAtSignal,
    sent: WandbLog | None,
    *,
    goes_on: bool,
) -> Trainer:
    csv = MetricsCsv(path=info.folder / "metrics.csv")
    label = config.name if config.name == info.network_name else f"{config.name} ({info.network_name})"
    job = info.sweep["job"] + 1 if info.sweep else 1
    callbacks = [
        record,
        TrainingProgress(
            label=redacted(label),
            monitor=record.monitor,
            job=job,
            jobs=info.jobs,
            best_before=record.best,
        ),
        ComparableFigures(record),
        *build_callbacks(config),
    ]
    if sent is not None:
        callbacks.append(WandbPhotos(record, photos=config.logger.photos))
    if isinstance(parts.data.degradation, OnDemand):
        callbacks.append(FollowValidation(parts.data.degradation))
    if goes_on:
        callbacks.append(ConfiguredOptimizer())
    elif parts.initial is not None and parts.initial.whole:
        callbacks.append(ScoreBefore(record))
    callbacks.append(stopping)
    loggers: list[Logger] = [csv] if sent is None else [csv, sent]
    return build_trainer(config, parts.family, callbacks, loggers)


def _checkpoint(
    config: DictConfig, info: RunInfo, record: RunRecord, first: bool
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to resume from and its "restora" entry; None for a run that starts from step 0."""
    if config.resume is None and first:
        return None
    found = find_checkpoint(info.folder)
    if not first:
        return found
    if found is None:
        log.warning("%s has no readable checkpoint: the run starts from the beginning", info.folder)
    elif 0 < (config.trainer.max_steps or 0) < (done := int(found[1]["step"])):
        raise ConfigError(
            f"trainer.max_steps={config.trainer.max_steps}, but {info.folder} has trained for {done} steps "
            f"already: set more than {done}"
        )
    if found is not None and found[0].name != "last.ckpt":
        _replace_last(found[0])
    record.goes_on(None if found is None else found[1], info.changed)
    return found


def _replace_last(whole: Path) -> None:
    """Replaces a damaged `last.ckpt` by an intact checkpoint."""
    last = whole.with_name("last.ckpt")
    draft = last.with_suffix(".ckpt.tmp")
    try:
        shutil.copyfile(whole, draft)
        sync(draft)
        draft.replace(last)
    finally:
        draft.unlink(missing_ok=True)


def _take_back(trainer: Trainer, record: RunRecord, checkpoint: tuple[Path, dict[str, Any]] | None) -> None:
    """Drops the rows of metrics.csv that will be computed again."""
    step = 0 if checkpoint is None else int(checkpoint[1]["step"])
    if checkpoint is not None:
        log.info("the run resumes after step %d", step)
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCsv) and trainer.is_global_zero:
            last, validated = record.data["metrics"]["last"], bool(logger.continue_from(step))
            if not validated and last is not None and last["step"] >= step:
                record.data["metrics"]["last"] = None  # its row is gone: validated once more at the end
            if checkpoint is not None:
                _complete_metrics(record, checkpoint[1], validated)


def _complete_metrics(record: RunRecord, saved: dict[str, Any], validated: bool) -> None:
    """Restores validation metrics that a lost run.json held from the checkpoints."""
    metrics = record.data["metrics"]
    if validated and metrics["last"] is None and saved.get("metrics"):
        metrics["last"] = {**saved["metrics"], "step": int(saved["step"])}
    path = record.info.folder / "checkpoints" / "best.ckpt"
    if metrics["best"] is None and path.exists():
        with suppress(ValueError):  # damaged: reported where it is needed
            best = read_checkpoint(path)["restora"]
            if best.get("metrics"):
                metrics["best"] = {**best["metrics"], "step": int(best["step"])}


def _compare_photos(parts: Parts, record: RunRecord, info: RunInfo) -> None:
    """Records fingerprints of the photos of all splits. Raises `ConfigError` for a resumed run whose photos
    have changed, unless its data configuration has changed too."""
    if own_rank() != 0:
        return
    found = {split: fingerprint(stores) for split in SPLITS if (stores := parts.data.stores(split))}
    earlier = record.data["photos"] or {}
    other = [split for split in found if earlier.get(split) not in (None, found[split])]
    if other and not any(key.startswith(("data.", "data_dir")) for key in info.changed):
        raise ConfigError(
            f"the photos for {' and '.join(other)} are not those that this run was trained with, although "
            f"the configuration is the same: put them back, or name others (data.source.root=FOLDER)"
        )
    record.data["photos"] = found


def _score(trainer: Trainer, parts: Parts, record: RunRecord) -> None:
    """Validates the last weights if not done yet, then scores the best checkpoint on the held-out photos."""
    last = record.data["metrics"]["last"]
    if last is None or last["step"] != parts.family.steps_done():
        trainer.validate(parts.family, parts.data, verbose=False)
    best = record.data["metrics"]["best"]
    if best is None or not math.isfinite(best.get(record.monitor.metric, 0.0)):
        raise NonFinite("validation never gave a finite score", None)
    path = record.info.folder / "checkpoints" / "best.ckpt"
    if trainer.fast_dev_run or not parts.data.has_test:  # type: ignore[attr-defined]
        return
    if path.exists():
        read_checkpoint(path)  # raises its own error if damaged
    chosen = path if path.exists() else None  # callbacks.best=null keeps none: the last weights
    trainer.test(parts.family, parts.data, ckpt_path=chosen, verbose=False, weights_only=True)
    record.take_test(parts.family.scores)


def _say_stopped(record: RunRecord) -> None:
    """Prints the command that resumes the run, or why the run was pruned."""
    saved = find_checkpoint(record.info.folder)
    what = "before its first checkpoint" if saved is None else f"at step {saved[1]['step']}"
    if (why := record.info.folder / PRUNED).exists():
        _say(f"stopped {what}: {why.read_text(encoding='utf-8')}")
        return
    own = [word for path in folders_in(record.info.command) for word in ("--config-dir", path)]
    own += [word for word in record.info.overrides if word.startswith("plugins=")][-1:]
    own += [word for word in record.info.overrides if re.match(r"[^=]*_target_=.*\.", word)]
    where = shlex.join([f"resume={_shortest(record.info.folder)}", *own])
    Console(stderr=True).print(
        f"stopped {what}; resume with: restora train {where}", markup=False, highlight=False, soft_wrap=True
    )


def _say_outcome(record: RunRecord) -> None:
    if own_rank() != 0:
        return
    console = Console(stderr=True)
    photos, scores = record.outcome()
    start = f"{scores['input_psnr']:.2f} -> " if "input_psnr" in scores else ""
    figures = f"{photos} {start}{scores['psnr']:.2f} dB · " if "psnr" in scores else ""
    console.print(f"{figures}{_shortest(record.info.folder)}", markup=False, highlight=False, soft_wrap=True)
    if warning := worse_than_input(scores, record.data["reference"]):
        _say(f"the result is {warning}", style="yellow")
    improved, line = compared(record.data["init"], record.data["metrics"]["best"], record.monitor)
    if line:
        _say(line, style=None if improved else "yellow")


def _shortest(folder: Path) -> Path:
    """The path relative to the user's working directory, if it lies below it."""
    folder, here = folder.resolve(), Path(os.environ.get(TYPED_IN) or Path.cwd())
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _forget_processes() -> None:
    """Removes the process group, so that the next job of a sweep can open its own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if os.environ.get("LOCAL_RANK") == "0" and "TORCHELASTIC_RUN_ID" not in os.environ:
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
