"""The plan of a sweep, `sweep.json`: its command and settings, and its jobs with their folders.

A job is a folder whose `run.json` has the status "queued" until it starts, and holds the configuration,
composed once. Its identity is a hash of the settings that determine the result: so the same command finds its
jobs again, and two combinations with the same identity are one job. The status of the jobs is stored only in
their folders.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, get_type_hints

from restora.arguments import fits
from restora.composing.constructors import defaults
from restora.files import json_text, read_json, write_json
from restora.registry import kind_below, part_of, stored
from restora.reporting.values import surrounds

FILE = "sweep.json"
STOP = ".stop"
"""A file that requests the sweep's process to stop it."""
FORMAT = 1
SETTINGS = ("executor", "slots", "options", "detach", "search")
"""The settings of the group `sweep` that are needed to run a plan."""


@dataclass(frozen=True)
class Job:
    """One folder of the sweep, by its name; `same` counts further combinations with the same identity."""

    number: int
    name: str
    identity: str
    overrides: list[str]
    same: int = 0


@dataclass
class Plan:
    """The content of `sweep.json`.

    `settings` are those of the group `sweep`, `environment` the environment variables of jobs, `hours` the
    estimates by a job's identity, if any.
    """

    folder: Path
    command: str
    overrides: list[str]
    cwd: str
    settings: dict[str, Any]
    jobs: list[Job] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    chdir: bool = False
    commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)

    @property
    def expected(self) -> int:
        """The number of jobs at the end; a search adds its jobs one by one."""
        search = self.settings.get("search")
        return max(len(self.jobs), int(search["trials"]) if search else 0)

    def path(self, job: Job) -> Path:
        return self.folder / job.name

    def by_identity(self) -> dict[str, Job]:
        return {job.identity: job for job in self.jobs}

    def write(self) -> None:
        content = asdict(self)
        del content["folder"]
        write_json(self.folder / FILE, {"format": FORMAT, **content})


class Damaged(ValueError):
    """A plan that cannot be read; the sweep's command recreates it from the folders of its jobs."""

    def __init__(self, path: Path, reason: object) -> None:
        again = f"give the command of the sweep again, with hydra.sweep.dir={path.parent}"
        super().__init__(f"{path} is damaged ({reason}): {again}")


def read_plan(folder: Path) -> Plan:
    """The plan of a sweep folder. Raises a `ValueError` that names the problem, such as `Damaged`."""
    path = folder / FILE
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is not a sweep folder (it has no {FILE}): name the folder that `restora train -m` "
            "printed"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(path, error) from error
    if not isinstance(content, dict):
        raise Damaged(path, "it is not a mapping")
    if (version := content.pop("format", None)) != FORMAT:
        raise ValueError(
            f"{path} is a plan of format {version}, this restora reads format {FORMAT}: resume with the "
            "version that made it, or name another folder, hydra.sweep.dir=FOLDER"
        )
    try:
        plan = Plan(folder=folder, **{**content, "jobs": [Job(**job) for job in content["jobs"]]})
    except (TypeError, KeyError) as error:
        raise Damaged(path, error) from error
    for part in (plan, *plan.jobs):
        for name, hint in get_type_hints(type(part)).items():
            if not fits(getattr(part, name), hint):
                raise Damaged(path, f"{name}: {getattr(part, name)!r}"[:80])
    for job in plan.jobs:
        if Path(job.name).is_absolute() or ".." in Path(job.name).parts:
            raise Damaged(path, f"job {job.name} is not in the folder")
    if missing := [name for name in SETTINGS if name not in plan.settings]:
        raise Damaged(path, f"settings have no {missing[0]}")
    return plan


def jobs_in(folder: Path) -> list[Job]:
    """The jobs of a sweep from the records in their folders, for a lost plan.

    Folders within that have a plan are other sweeps. Of jobs that were put together from several sweeps, no
    two keep the same number.
    """
    found: list[Job] = []
    for parent, folders, files in os.walk(folder):
        place = Path(parent)
        if place != folder and FILE in files:
            folders.clear()
            continue
        try:
            record = read_json(place / "run.json")
            number, words = record["sweep"]["job"], record["sweep"]["overrides"]
            known = identity(stored(record["config"]))
            found.append(Job(int(number), str(place.relative_to(folder)), known, list(words)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # no job
    found.sort(key=lambda job: (job.number, job.name))
    free = count(max((job.number for job in found), default=0) + 1)
    repeated = {after.name for job, after in pairwise(found) if job.number == after.number}
    return [replace(job, number=next(free)) if job.name in repeated else job for job in found]


def identity(config: Mapping[str, Any], *, seeds: bool = True) -> str:
    """A hash of a plain, resolved configuration without its surroundings and the run's own folder.

    Without `seeds` it is equal for runs that differ only by their seeds.
    """
    own = str(config.get("run_dir"))
    flat = {
        key: _without(value, own)
        for key, value in _leaves(config, "")
        if not surrounds(key) and (seeds or key.rpartition(".")[2] != "seed")
    }
    return hashlib.sha256(json_text(flat, indent=None, sort_keys=True).encode()).hexdigest()[:16]


def completed(node: Any, kind: str | None = None) -> Any:
    """A stored description with every argument of its parts, also arguments that were added since."""
    if isinstance(node, list):
        return [completed(value, kind) for value in node]
    if not isinstance(node, dict):
        return node
    within = "_target_" in node
    full = {key: completed(value, kind_below(kind, key, within_part=within)) for key, value in node.items()}
    if kind is not None and part_of(node, kind) is not None:
        full = {**defaults(kind, node["_target_"]), **full}
    return full


def _without(value: Any, folder: str) -> Any:
    if isinstance(value, list):
        return [_without(item, folder) for item in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def _leaves(node: Any, where: str) -> list[tuple[str, Any]]:
    if isinstance(node, dict) and node:  # isinstance of an abstract type takes ten times as long
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{where}{key}.")]
    return [(where.removesuffix("."), node)]


def earlier_sweep(above: Path, same: Callable[[Plan], bool]) -> Path | None:
    """The newest sweep folder in `above` whose plan is `same`, so that the same command resumes it."""
    found = []
    for path in above.glob(f"*/{FILE}"):
        try:
            plan = read_plan(path.parent)
        except ValueError:
            continue
        if same(plan):
            found.append((path.stat().st_mtime, path.parent))
    return max(found)[1] if found else None
