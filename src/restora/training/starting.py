"""A run in its folder: started, gone on with, or left alone because it is finished.

Two ways lead here: a composed command line (`restora train`), and a folder whose `run.json` says what is to
be trained, which is how the jobs of a sweep start, on this machine or another.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from restora.files import read_json
from restora.run_state import sole_run
from restora.strangers import check_inside
from restora.training.record import RunInfo
from restora.training.resuming import differences, what_to_do
from restora.training.run import train


def start(config: DictConfig, info: RunInfo, *, write: Callable[[], None] | None = None) -> float:
    """Trains in `info.folder` what is left to train there; the monitored figure.

    `write` is called once it is known that the folder is this run's; a further process of torchrun or srun
    leaves the folder to the first and joins. Raises `Occupied`.
    """
    if _is_further_process():
        return _join(config, info)
    check_inside(info.folder)
    with sole_run(info.folder):
        asked = config.resume is not None
        todo = what_to_do(info.folder, info.config, asked=asked, retry=bool(config.get("retry_failed")))
        if todo == "skip":
            return earlier_score(info.folder)
        if todo == "go on":
            config.resume = str(info.folder)
            info.changed = differences(earlier_config(info.folder), info.config)
        if write is not None:
            write()
        return train(config, info)


def _is_further_process() -> bool:
    """Whether this is not the first of several processes that were started by one command each."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID"))
    return any(rank is not None and rank != "0" for rank in ranks)


def _join(config: DictConfig, info: RunInfo) -> float:
    folder = info.folder
    earlier = earlier_config(folder) is not None and (folder / "checkpoints" / "last.ckpt").exists()
    if earlier and read_json(folder / "run.json").get("status") == "finished":
        return earlier_score(folder)
    config.resume = str(folder) if earlier else config.resume
    return train(config, info)


def start_folder(folder: Path, *, jobs: int = 1, threads: int | None = None, retry: bool = False) -> float:
    """The run that `run.json` of the folder describes, from nothing else; `jobs`: of so many in a sweep."""
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
    """A configuration whose own folder is `folder`, where it was moved since, or paths are of elsewhere."""
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
    """The configuration that a folder's run was trained with; None where there is none to read."""
    try:
        return read_json(folder / "run.json").get("config")
    except (OSError, ValueError, AttributeError):
        return None


def earlier_score(folder: Path) -> float:
    """Of a run that is finished: said, and given to the sweeper."""
    record = read_json(folder / "run.json")
    print(f"{folder} is {record['status']} already: skipped", file=sys.stderr)
    return float(((record.get("metrics") or {}).get("best") or {}).get("val/psnr", float("nan")))
