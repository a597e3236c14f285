"""Search: Optuna chooses the next job from the results so far, by ask and tell.

The study is a file in the sweep folder (`study.journal`), no server. A trial is a job: the trial stores the
job's folder, so that a killed search is resumed with the jobs that ran. The result of a point that was
computed before is read from its folder. A failed trial is recorded with its reason, and the study goes on.

Note: samplers draw by (seed, number of the trial), so that a resumed search asks for the same points. The
pruner sees the first validated objective in a separate study, because Optuna does not prune a study of two
objectives; a job that it ends early has used the learning rates of the full schedule.
"""

import csv
import hashlib
import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restora.config import ConfigError
from restora.files import write_whole
from restora.run_state import read_record
from restora.sweeping import combinations, planning
from restora.sweeping.plan import Job, Plan
from restora.sweeping.space import optuna, space_of
from restora.vocabulary import seconds
from restora.words import figure

JOURNAL = "study.journal"
SAMPLERS = ("tpe", "gp", "nsga2", "random")
PRUNERS = ("median", "hyperband")
MEASURES = ("macs_256", "parameters", "seconds_per_photo", "fit_seconds")
"""Objectives other than the metrics of validation."""
_OVER = ("finished", "failed", "pruned")


@dataclass(frozen=True)
class Settings:
    """`objectives` by name, each max or min; a metric of validation (val/psnr) or one of `MEASURES`."""

    sampler: str
    trials: int
    objectives: dict[str, str]
    pruner: str | None = None
    seed: int = 1
    startup: int = 8

    @classmethod
    def of(cls, node: Mapping[str, Any], monitor: Mapping[str, Any]) -> "Settings":
        """From `sweep.search` of a configuration; the default objective is the monitor.

        Raises `ConfigError`.
        """
        objectives = dict(node.get("objectives") or {monitor["metric"]: monitor["direction"]})
        found = cls(**{**node, "objectives": objectives})
        for name, value, known in (
            ("sampler", found.sampler, SAMPLERS),
            ("pruner", found.pruner, (*PRUNERS, None)),
            *((f"objectives.{name}", direction, ("max", "min")) for name, direction in objectives.items()),
        ):
            if value not in known:
                raise ConfigError(
                    f"sweep.search.{name} must be one of {', '.join(map(str, known))}, got {value!r}"
                )
        logged = sorted({"val/psnr", "val/ssim", str(monitor["metric"])})
        for name in objectives:
            if name in logged or name in MEASURES:
                continue
            if not name.startswith("val/"):
                raise ConfigError(
                    f"sweep.search.objectives: {name} is neither what validation logs, such as val/psnr, "
                    f"nor one of {', '.join(MEASURES)} (photos that a report shows choose nothing)"
                )
            raise ConfigError(
                f"sweep.search.objectives: validation logs {', '.join(logged)}, not {name}; to log another "
                "metric, set monitor.metric"
            )
        if found.trials < 1:
            raise ConfigError(f"sweep.search.trials must be at least 1, got {found.trials}")
        if found.pruner and found.watched is None:
            raise ConfigError(
                f"sweep.search.pruner={found.pruner} needs an objective of validation, such as val/psnr"
            )
        return found

    @property
    def watched(self) -> str | None:
        """The objective by which running jobs are compared; None if no objective is validated."""
        return next((name for name in self.objectives if name.startswith("val/")), None)


# --- the study ---------------------------------------------------------------------------------------------


def open_study(folder: Path, settings: Settings) -> Any:
    """The study of a sweep folder, for this process alone.

    What a killed process left is repaired, as is a damaged journal.
    """
    path = folder / JOURNAL
    for lock in folder.glob(f"{JOURNAL}.lock*"):  # of a killed process
        lock.unlink(missing_ok=True)
    try:
        study = _opened(path, settings)
    except OSError:
        raise
    except Exception as error:  # of JSON, of text, and of Optuna, which replays any line
        study = _opened_in_part(path, settings, error)
    _check_objectives(study, settings, folder)
    return study


def _opened(path: Path, settings: Settings) -> Any:
    library = optuna()
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):  # killed within a line
            path.write_bytes(content[: content.rfind(b"\n") + 1])
    backend = library.storages.journal.JournalFileBackend(str(path))
    directions = ["maximize" if way == "max" else "minimize" for way in settings.objectives.values()]
    return library.create_study(
        study_name="sweep",
        storage=library.storages.JournalStorage(backend),
        directions=directions,
        sampler=sampler(settings, 0),
        load_if_exists=True,
    )


def _opened_in_part(path: Path, settings: Settings, reason: Exception) -> Any:
    """The study of a damaged journal, from the lines before the damage.

    Trials that are lost with the others are asked for again, and finished jobs answer them.
    """
    content = path.read_bytes()
    kept = path.with_name(f"{path.name}.damaged")
    write_whole(kept, content)
    planning.tell(
        f"{path} is damaged ({type(reason).__name__}: {reason}): it is kept as {kept.name}, the trials "
        "before the damage count, and finished jobs answer the others"
    )
    lines = content.splitlines(keepends=True)
    intact = list(itertools.takewhile(_is_mapping, lines))
    for part in (intact, []):
        write_whole(path, b"".join(part))
        with suppress(Exception):
            return _opened(path, settings)
    raise reason


def _is_mapping(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _check_objectives(study: Any, settings: Settings, folder: Path) -> None:
    """Raises `ConfigError` for other objectives than the study's; Optuna would keep its own directions."""
    before = study.user_attrs.get("objectives")  # None: new, or of an earlier version
    ways = [direction.name.lower()[:3] for direction in study.directions]
    if ways == list(settings.objectives.values()) and before in (None, settings.objectives):
        study.set_user_attr("objectives", settings.objectives)
        return
    had = ", ".join(f"{name} {way}" for name, way in (before or {}).items()) or ", ".join(ways)
    raise ConfigError(
        f"the search in {folder} has other objectives ({had}): name another folder, hydra.sweep.dir=FOLDER"
    )


def sampler(settings: Settings, number: int) -> Any:
    """The sampler of trial `number`."""
    kinds: Any = optuna().samplers
    seed = _mixed(settings.seed, number)
    if settings.sampler == "tpe":
        return kinds.TPESampler(seed=seed, n_startup_trials=settings.startup, constant_liar=True)
    if settings.sampler == "gp":
        return kinds.GPSampler(seed=seed, n_startup_trials=settings.startup)
    if settings.sampler == "nsga2":
        return kinds.NSGAIISampler(seed=seed, population_size=settings.startup)
    return kinds.RandomSampler(seed=seed)


def _mixed(seed: int, number: int) -> int:
    """A seed of 32 bits; those of consecutive trials are unrelated, because the first draws of numpy's
    generators from consecutive seeds are nearly equal."""
    return int.from_bytes(hashlib.sha256(f"{seed},{number}".encode()).digest()[:4], "little")


def value_of(name: str, record: Mapping[str, Any]) -> float | None:
    """An objective of a finished run; None if it is missing or not finite."""
    if name.startswith("val/"):
        found = ((record.get("metrics") or {}).get("best") or {}).get(name)
    elif name == "seconds_per_photo":
        images = (record.get("test") or {}).get("images") or []
        known = [image["seconds"] for image in images if image.get("seconds") is not None]
        found = statistics.fmean(known) if known else None
    elif name == "fit_seconds":
        found = (record.get("cost") or {}).get("fit_seconds")
    else:
        found = record.get(name)
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


@dataclass
class Pruning:
    """Compares running jobs by one metric of validation, at the share of training that each has reached."""

    settings: Settings
    study: Any
    trials: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    read: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    """The version of each job's metrics.csv that was read last."""

    @classmethod
    def of(cls, settings: Settings) -> "Pruning | None":
        if settings.pruner is None:
            return None
        library = optuna()
        direction = "maximize" if settings.objectives[str(settings.watched)] == "max" else "minimize"
        if settings.pruner == "median":
            pruner = library.pruners.MedianPruner(n_startup_trials=min(settings.startup, 5), n_warmup_steps=0)
        else:
            pruner = library.pruners.HyperbandPruner(min_resource=10, max_resource=100)
        study = library.create_study(study_name="pruning", direction=direction, pruner=pruner)
        return cls(settings, study)

    def look(self, name: str, folder: Path, config: Mapping[str, Any]) -> str | None:
        """Reports a job's new validations to the pruner; returns the reason to prune it, or None."""
        if name not in self.trials:
            self.trials[name] = self.study.ask()
        trial, metrics = self.trials[name], folder / "metrics.csv"
        version = _version(metrics)
        if version == self.read.get(name):  # it is asked several times a second
            return None
        self.read[name] = version
        rows = _curve(metrics, str(self.settings.watched), config)
        new = rows[self.seen.get(name, 0) :]
        self.seen[name] = len(rows)
        for share, value in new:
            trial.report(value, share)
            if share < 100 and trial.should_prune():
                shown = figure(str(self.settings.watched).removeprefix("val/"), value)
                return f"{self.settings.pruner} pruner: {shown} after {share}% of the training"
        return None

    def over(self, name: str, folder: Path, state: str, record: Mapping[str, Any]) -> None:
        """Adds an ended job to the study, so that later ones are compared with it."""
        if name in self.done:
            return
        self.done.add(name)
        states = optuna().trial.TrialState
        self.look(name, folder, record.get("config") or {})
        trial = self.trials.pop(name)
        value = value_of(str(self.settings.watched), record)
        if state == "finished" and value is not None:
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=states.PRUNED if state == "pruned" else states.FAIL)


def _version(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change of a file; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _curve(path: Path, metric: str, config: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(percent of the training, metric) of every validation; the percentage is of steps, time or epochs."""
    trainer = config.get("trainer") or {}
    steps, limit = trainer.get("max_steps"), seconds(trainer.get("max_time"), "trainer.max_time")
    whole = {"step": steps if isinstance(steps, int) and steps > 0 else None, "seconds": limit}
    if not any(whole.values()):
        epochs = trainer.get("max_epochs")
        whole = {"epoch": epochs if isinstance(epochs, int) and epochs > 0 else None}
    found: dict[int, float] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    shares = [100 * float(row[key]) / length for key, length in whole.items() if length]
                    share, value = int(max(shares)), float(row[metric])
                except (KeyError, TypeError, ValueError):
                    continue
                if math.isfinite(value):
                    found.setdefault(share, value)
    except (OSError, UnicodeDecodeError, csv.Error):  # damaged: earlier rows count
        pass
    return list(found.items())


@dataclass
class Search:
    """A source of jobs: Optuna's trials. `above` are the overrides of Hydra and the sweep."""

    plan: Plan
    settings: Settings
    space: dict[str, Any]
    fixed: list[str]
    above: list[str]
    study: Any
    pruning: Pruning | None
    trials: dict[str, list[Any]] = field(default_factory=dict)
    """Trials that wait for a job, by its name; several if they have the same point."""
    again: list[Job] = field(default_factory=list)
    _configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, settings: Settings, words: Sequence[str], above: Sequence[str]) -> "Search":
        space, fixed = space_of(words)
        search = cls(
            plan, settings, space, fixed, list(above), open_study(plan.folder, settings), Pruning.of(settings)
        )
        search._take_up()
        return search

    def _take_up(self) -> None:
        """Takes up an earlier process's search: its running trials, and for the pruner its ended jobs."""
        library = optuna()
        from restora.sweeping import ending

        for job in self.plan.jobs:
            state, record = ending.status(self.plan.path(job))
            if self.pruning is not None and state in _OVER:
                self.pruning.over(job.name, self.plan.path(job), state, record)
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.state != library.trial.TrialState.RUNNING:
                continue
            trial = library.trial.Trial(self.study, frozen._trial_id)
            if set(frozen.params) != set(self.space):  # killed during ask
                self.study.tell(trial, state=library.trial.TrialState.FAIL)
            elif (waiting := self._job_of(trial)) is not None:
                self.again.append(waiting)

    def next(self) -> Job | None:
        if self.again:
            return self.again.pop(0)
        while len(self._counted()) < self.settings.trials:
            self.study.sampler = sampler(self.settings, len(self._counted()))
            trial = self.study.ask(self.space)
            if (job := self._job_of(trial)) is not None:
                return job
        return None

    def _counted(self) -> list[Any]:
        """Trials with a complete point; a trial that a kill cut off during ask does not count."""
        return [t for t in self.study.get_trials(deepcopy=False) if set(t.params) == set(self.space)]

    def _job_of(self, trial: Any) -> Job | None:
        """The job to run for a trial; None if its result is known or expected, or it cannot be trained."""
        from restora.sweeping import ending

        point = [f"{key}={value}" for key, value in trial.params.items()]
        try:
            made = combinations.composed([*self.fixed, *point], self.above)
            combinations.check(made, apart=point)
        except ConfigError as error:
            self._fail(trial, str(error))
            return None
        (job,) = planning.add_jobs(self.plan, [made])
        trial.set_user_attr("folder", job.name)
        waiting = self.trials.setdefault(job.name, [])
        waiting.append(trial)
        if len(waiting) > 1:  # the same point runs in another slot
            return None
        state, record = ending.status(self.plan.path(job))
        if state in _OVER and not (state == "failed" and ending.was_killed(record)):
            self.ended(job, state, record)
            return None
        return job

    def _fail(self, trial: Any, reason: str) -> None:
        trial.set_user_attr("reason", reason[:500])
        self.study.tell(trial, state=optuna().trial.TrialState.FAIL)

    def ended(self, job: Job, state: str, record: dict[str, Any]) -> None:
        if state not in _OVER:
            return  # a stop was requested: the same command resumes it
        if self.pruning is not None:
            self.pruning.over(job.name, self.plan.path(job), state, record)
        states = optuna().trial.TrialState
        values = {name: value_of(name, record) for name in self.settings.objectives}
        for trial in self.trials.pop(job.name, []):
            missing = [name for name, value in values.items() if value is None]
            if state == "pruned":
                self.study.tell(trial, state=states.PRUNED)
            elif state == "failed" or missing:
                self._fail(trial, str(record.get("error") or f"it has no {missing[0]}"))
            else:
                self.study.tell(trial, list(values.values()))

    def verdict(self, job: Job) -> str | None:
        if self.pruning is None:
            return None
        return self.pruning.look(job.name, self.plan.path(job), self._config(job))

    def _config(self, job: Job) -> Mapping[str, Any]:
        if job.name not in self._configs:
            self._configs[job.name] = read_record(self.plan.path(job)).get("config") or {}
        return self._configs[job.name]

    def reasons(self) -> list[str]:
        """Why trials have no result, each reason once, the most common one first."""
        found = (trial.user_attrs.get("reason") for trial in self.study.get_trials(deepcopy=False))
        return [reason for reason, _ in Counter(str(reason) for reason in found if reason).most_common()]

    def repeated(self) -> int:
        """The number of trials that took the result of an earlier one's job, as they have its point."""
        trials = self.study.get_trials(deepcopy=False)
        folders = [trial.user_attrs["folder"] for trial in trials if "folder" in trial.user_attrs]
        return len(folders) - len(set(folders))

    def best(self) -> list[tuple[str, dict[str, float], dict[str, Any]]]:
        """Folder, objectives and point of the best trial; of several objectives, the Pareto front."""
        try:
            chosen = self.study.best_trials
        except (ValueError, RuntimeError):
            return []
        found: dict[str, tuple[str, dict[str, float], dict[str, Any]]] = {}
        for trial in chosen:
            folder = str(trial.user_attrs.get("folder"))
            values = dict(zip(self.settings.objectives, trial.values, strict=True))
            found.setdefault(folder, (folder, values, trial.params))
        return sorted(found.values(), key=lambda row: list(row[1].values()))
