"""Makes the plan and the job folders of a sweep from its combinations.

Each combination (`combinations.py`) is written to the `run.json` of its folder. Combinations with the same
identity are one job; a job that the sweep has already keeps its folder, and new jobs get the next numbers.
"""

import fcntl
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from restora.composing.overrides import sweeps_among
from restora.config import ConfigError, compose
from restora.files import check_writable, read_json, write_whole
from restora.registry import stored
from restora.run_state import Occupied, claim, read_record
from restora.sweeping.combinations import HERE, Composed
from restora.sweeping.plan import (
    FILE,
    Damaged,
    Job,
    Plan,
    completed,
    earlier_sweep,
    identity,
    jobs_in,
    read_plan,
)


def settings_of(above: Sequence[str]) -> dict[str, Any]:
    """The settings of the group `sweep`."""
    config = compose("train", above)
    settings = OmegaConf.to_container(config.sweep, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def sweep_folder(overrides: Sequence[str], first: Composed, same: Callable[[Plan], bool]) -> Path:
    """The folder that the command names, else the newest one with the same sweep, else a new one.

    Raises ValueError for a folder that cannot be written.
    """
    if any(re.match(r"\+?hydra\.sweep\.dir=", word) for word in overrides):
        first.use(0)
        named = Path(str(OmegaConf.select(first.hydra, "hydra.sweep.dir")))
        check_writable(named, setting="hydra.sweep.dir", folder=True)
        if (named / "run.json").exists() and not (named / FILE).exists():
            raise Occupied(f"{named} is the folder of a run: name another one, hydra.sweep.dir=FOLDER")
        return named
    folder = _usual_folder(overrides, first)
    check_writable(folder, setting="output_dir", folder=True)
    return earlier_sweep(folder.parent, same) or folder


@contextmanager
def one_by_one(above: Path) -> Iterator[None]:
    """Locks a folder while a command looks for its sweep there and begins it.

    So two equal commands at the same time share one sweep. Note: some file systems cannot lock folders; there
    it has no effect.
    """
    above.mkdir(parents=True, exist_ok=True)
    handle = os.open(above, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def claimed(folder: Path, overrides: Sequence[str]) -> Path:
    """The folder; claims a new one unless the command names it."""
    named = any(re.match(r"\+?hydra\.sweep\.dir=", word) for word in overrides)
    return folder if named or (folder / FILE).exists() else claim(folder)


def _usual_folder(overrides: Sequence[str], first: Composed) -> Path:
    """The default folder, named after the experiment if all jobs have the same one."""
    try:
        config = compose("train", [w for w in overrides if w not in sweeps_among(overrides)], hydra_node=True)
    except ConfigError:  # the fixed overrides need the swept ones
        first.use(0)
        config = first.hydra
    HydraConfig.instance().set_config(config)
    return Path(str(OmegaConf.select(config, "hydra.sweep.dir")))


def new_plan(folder: Path, overrides: Sequence[str], first: Composed) -> Plan:
    """A plan for the folder with this command's settings and the jobs of an earlier plan, if any."""
    from restora.training.command import own_folders
    from restora.training.record import git, versions

    earlier = _earlier(folder)
    hydra = first.hydra.hydra
    environment = OmegaConf.to_container(hydra.job.env_set, resolve=True)
    assert isinstance(environment, dict)
    own = [word for path in own_folders(hydra.runtime.config_sources) for word in ("--config-dir", path)]
    return Plan(
        folder=folder,
        command=shlex.join(["restora", "train", *own, "-m", *overrides]),
        overrides=list(overrides),
        cwd=os.getcwd(),
        settings=first.settings,
        jobs=jobs_in(folder) if earlier is None else earlier.jobs,
        plugins=list(first.config.get("plugins") or []),
        environment={str(key): str(value) for key, value in environment.items()},
        chdir=bool(hydra.job.chdir),
        commit=git()["commit"],
        versions=versions(),
        hours={} if earlier is None else earlier.hours,
    )


def _earlier(folder: Path) -> Plan | None:
    """The folder's plan; None if there is none or it is damaged."""
    try:
        return read_plan(folder) if (folder / FILE).exists() else None
    except Damaged as error:
        tell(f"{error.args[0].partition(': give')[0]}: it is rebuilt from the folders of the jobs")
        return None


def add_jobs(plan: Plan, jobs: Iterable[Composed]) -> list[Job]:
    """The plan's jobs for the combinations, in their order.

    New jobs are added to the plan, and their folders are written. Raises `Occupied` for a folder with another
    run.
    """
    jobs = list(jobs)
    plan.jobs = renewed(plan, jobs)
    known, asked = plan.by_identity(), dict[str, Composed]()
    same: dict[str, int] = {}
    names = {job.name for job in plan.jobs}
    for position, job in enumerate(jobs):
        if job.identity in asked:
            same[job.identity] += 1
            continue
        asked[job.identity], same[job.identity] = job, 0
        if job.identity not in known:
            taken = {other.number for other in known.values()}
            number = position if position not in taken else max(taken) + 1
            known[job.identity] = Job(number, job.subfolder(number), job.identity, job.words)
            _refuse_shared(known[job.identity].name, names)
            _refuse_other(plan.path(known[job.identity]), asked[job.identity])
    plan.jobs = [replace(job, same=same.get(job.identity, job.same)) for job in known.values()]
    plan.folder.mkdir(parents=True, exist_ok=True)
    plan.write()
    chosen = plan.by_identity()
    for key, job in asked.items():
        record = read_record(plan.path(chosen[key]))
        if not isinstance(record.get("config"), dict):  # also if a kill or a user lost the record
            _write_folder(plan, chosen[key], job)
    return [chosen[key] for key in asked]


def renewed(plan: Plan, asked: Sequence[Composed]) -> list[Job]:
    """The jobs of a plan, with their present identities.

    A job with the same overrides whose parts have gained arguments with defaults since is the same job.
    """
    known = plan.by_identity()
    unknown = {tuple(job.words): job for job in asked if job.identity not in known}
    jobs = []
    for job in plan.jobs:
        now = unknown.get(tuple(job.overrides))
        if now is not None and _completed(plan.path(job)) == identity(completed(now.config)):
            del unknown[tuple(job.overrides)]
            job = replace(job, identity=now.identity)
        jobs.append(job)
    return jobs


def _completed(folder: Path) -> str | None:
    config = read_record(folder).get("config")
    return identity(completed(stored(config))) if isinstance(config, dict) else None


def _write_folder(plan: Plan, job: Job, made: Composed) -> None:
    """Writes `run.json` with the status queued, and `.hydra/`."""
    from restora.training.command import own_folders, repeating
    from restora.training.record import RunInfo, RunRecord

    folder = plan.path(job)
    config = _placed(made.config, str(folder))
    hydra = made.hydra.hydra
    info = RunInfo(
        folder=folder,
        config=config,
        command=repeating(made.words, list(hydra.overrides.hydra), own_folders(hydra.runtime.config_sources)),
        overrides=list(made.words),
        cwd=plan.cwd,
        experiment=str(hydra.runtime.choices.experiments),
        network_name=str(hydra.runtime.choices.network),
        sweep={"id": str(plan.folder), "job": job.number, "overrides": list(made.words)},
    )
    write_whole(folder / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(list(made.words)))
    write_whole(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(config))
    RunRecord(info).queue(begun=(folder / "checkpoints" / "last.ckpt").is_file())


def _placed(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {key: _placed(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, folder) for item in value]
    return value.replace(HERE, folder) if isinstance(value, str) else value


def _refuse_shared(name: str, names: set[str]) -> None:
    """Raises `ConfigError` for a name that another job has, or that leads out of the sweep; else adds it."""
    if os.path.isabs(name) or ".." in Path(name).parts:
        raise ConfigError(
            f"the folder of a job must be inside the sweep's, got {name}: choose another name, or another "
            "hydra.sweep.subdir"
        )
    if name in names:
        raise ConfigError(
            f"hydra.sweep.subdir gives two jobs the folder {name}: name the job in it, "
            "'hydra.sweep.subdir=${hydra.job.num}_${name}'"
        )
    names.add(name)


def _refuse_other(folder: Path, job: Composed) -> None:
    """Raises `Occupied` if the folder of a new job holds anything but the same run."""
    path = folder / "run.json"
    if not path.exists():
        if (folder / "checkpoints").is_dir():
            raise Occupied(
                f"{folder} holds checkpoints but no run.json: name another folder, or move it away"
            )
        return
    try:
        found = identity(stored(read_json(path)["config"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Occupied(f"{path} cannot be read: name another folder, or move it away") from error
    if found != job.identity:
        raise Occupied(
            f"{folder} holds a run of another configuration: name another folder, hydra.sweep.dir=FOLDER"
        )


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
