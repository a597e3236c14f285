"""Starts a run in its folder, resumes it, or skips it because it is finished.

It starts from a composed command line (`restora train`), or from a folder whose `run.json` holds the
configuration: this is how the jobs of a sweep start, on this machine or another.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from restora.files import read_json, write_whole
from restora.monitor import Monitor
from restora.run_state import read_record, sole_run
from restora.strangers import check_inside
from restora.training.record import RunInfo
from restora.training.resuming import check_changes, differences, what_to_do
from restora.training.run import train
from restora.training.settings import settle_precision


def start(config: DictConfig, info: RunInfo, *, write: Callable[[], None] | None = None) -> float:
    """Trains the run in `info.folder` from where it stands; returns its score.

    A run resumed with other settings that fails before its next step stays as it was.

    `write` is called after the folder is found to belong to this run. Processes of torchrun or srun above
    rank 0 join without checking the folder. Raises `Occupied`.
    """
    if _is_further_process():
        return _join(config, info)
    check_inside(info.folder)
    settle_precision(config, info, read_record(info.folder))
    with sole_run(info.folder):
        asked = config.resume is not None
        todo = what_to_do(info.folder, info.config, asked=asked, retry=bool(config.get("retry_failed")))
        if todo == "skip":
            return earlier_score(info.folder)
        if todo == "go on":
            config.resume = str(info.folder)
            info.changed = differences(earlier_config(info.folder), info.config)
            check_changes(info.changed)
        kept = _contents(info.folder) if info.changed else {}
        if write is not None:
            write()
        try:
            return train(config, info)
        except BaseException:
            if kept and not info.begun:  # refused, or wrong from the first step on: the run is not lost
                _put_back(kept)
                print(f"{info.folder} is as it was", file=sys.stderr)
            raise


def _contents(folder: Path) -> dict[Path, bytes]:
    """The files of a run that say how it is trained."""
    files = [folder / "run.json", *(folder / ".hydra").glob("*.yaml")]
    return {path: path.read_bytes() for path in files if path.is_file()}


def _put_back(kept: Mapping[Path, bytes]) -> None:
    for path, content in kept.items():
        if path.parent.is_dir():
            write_whole(path, content)


def _is_further_process() -> bool:
    """Whether torchrun or srun started this process with a rank above 0."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID"))
    return any(rank is not None and rank != "0" for rank in ranks)


def _join(config: DictConfig, info: RunInfo) -> float:
    folder = info.folder
    earlier = earlier_config(folder) is not None and (folder / "checkpoints" / "last.ckpt").exists()
    if earlier and read_json(folder / "run.json").get("status") == "finished":
        return earlier_score(folder)
    config.resume = str(folder) if earlier else config.resume
    settle_precision(config, info, read_record(folder))
    return train(config, info)


def start_folder(folder: Path, *, jobs: int = 1, threads: int | None = None, retry: bool = False) -> float:
    """Starts the run that the folder's `run.json` describes; `jobs` is the number of jobs in its sweep."""
    record = read_json(folder / "run.json")
    plain: dict[str, Any] = _placed(record["config"], str(record["config"].get("run_dir")), folder)
    config = OmegaConf.create(plain)
    config.retry_failed = retry
    config.threads = config.threads or threads
    info = RunInfo(
        folder=folder,
        config=plain,
        command=record["command"],
        overrides=record["overrides"],
        cwd=record["cwd"],
        experiment=record["experiment"],
        network_name=record["network"],
        sweep=record["sweep"],
        jobs=jobs,
    )
    return start(config, info)


def _placed(value: Any, recorded: str, folder: Path) -> Any:
    """Replaces the recorded run folder in a configuration by `folder`, for a moved or copied run."""
    if Path(recorded).resolve() == folder.resolve():
        return value
    if isinstance(value, dict):
        return {key: _placed(item, recorded, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, recorded, folder) for item in value]
    if isinstance(value, str) and (value == recorded or value.startswith(f"{recorded}/")):
        return f"{folder}{value.removeprefix(recorded)}"
    return value


def earlier_config(folder: Path) -> Any:
    """The configuration that a folder's run was trained with; None if it cannot be read."""
    return read_record(folder).get("config")


def earlier_score(folder: Path) -> float:
    """The best monitored validation score of a finished run; prints that the run is skipped."""
    record = read_json(folder / "run.json")
    print(f"{folder} is {record['status']} already: skipped", file=sys.stderr)
    try:
        metric = Monitor.of(record.get("config") or {}).metric
        return float(record["metrics"]["best"][metric])
    except (AttributeError, KeyError, TypeError, ValueError):  # not validated, or damaged
        return float("nan")
