"""The plan of a sweep, `sweep.json`: what was asked for, and which folder holds which job.

A job is a folder whose `run.json` says "queued" until it is started, and holds the configuration, composed
once. It is known by its identity, a hash of what decides the result: so the same command finds its jobs
again, and two combinations that come to the same thing are one job. What became of the jobs stands in their
folders alone.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from restora.files import json_text, read_json, write_json

FILE = "sweep.json"
STOP = ".stop"
"""A file that asks the process that runs a sweep to end it."""
FORMAT = 1
SURROUNDINGS = (
    *("run_dir", "resume", "retry_failed", "output_dir", "data_dir", "threads", "plugins", "sweep"),
    *("data.store_dir", "data.workers", "leakage", "logger"),
)
"""Keys, with what is below them, that decide where and how a job runs, not what comes out."""


@dataclass(frozen=True)
class Job:
    """One folder of the sweep, by its name; `same` counts further combinations that come to the same."""

    number: int
    name: str
    identity: str
    overrides: list[str]
    same: int = 0


@dataclass
class Plan:
    """What `sweep.json` says.

    `settings` are those of the group sweep, `environment` the variables that jobs see, `hours` an
    estimate for each job by its identity, as far as there is one.
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

    def path(self, job: Job) -> Path:
        return self.folder / job.name

    def by_identity(self) -> dict[str, Job]:
        return {job.identity: job for job in self.jobs}

    def write(self) -> None:
        content = asdict(self)
        del content["folder"]
        write_json(self.folder / FILE, {"format": FORMAT, **content})


def read_plan(folder: Path) -> Plan:
    """The plan of a sweep folder. Raises `ValueError` that names what is wrong."""
    path = folder / FILE
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is no sweep folder (it has no {FILE}): name the folder that `restora train -m` said"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): give the command of the sweep again") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is no plan of format {FORMAT}: it is of another version of restora")
    try:
        content["jobs"] = [Job(**job) for job in content["jobs"]]
        for job in content["jobs"]:
            if Path(job.name).is_absolute() or ".." in Path(job.name).parts:
                raise KeyError(f"job {job.name} is not in the folder")
        return Plan(folder=folder, **content)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): give the command of the sweep again") from error


def identity(config: Mapping[str, Any]) -> str:
    """A hash of a plain, resolved configuration without `SURROUNDINGS` and the run's own folder."""
    own = str(config.get("run_dir"))
    flat = {key: _without(value, own) for key, value in _leaves(config, "") if not _surrounds(key)}
    return hashlib.sha256(json_text(flat, indent=None, sort_keys=True).encode()).hexdigest()[:16]


def _surrounds(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in SURROUNDINGS)


def _without(value: Any, folder: str) -> Any:
    if isinstance(value, list):
        return [_without(item, folder) for item in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def _leaves(node: Any, where: str) -> list[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{where}{key}.")]
    return [(where.removesuffix("."), node)]


def earlier_sweep(above: Path, same: Callable[[Plan], bool]) -> Path | None:
    """The newest sweep folder in `above` whose plan is `same`, so that the same command goes on with it."""
    found = []
    for path in above.glob(f"*/{FILE}"):
        try:
            plan = read_plan(path.parent)
        except ValueError:
            continue
        if same(plan):
            found.append((path.stat().st_mtime, path.parent))
    return max(found)[1] if found else None
