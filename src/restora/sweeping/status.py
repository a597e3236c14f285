"""The status of a sweep from the folders of its jobs alone: states, figures, time left, cost.

A job whose `run.json` has values that are none counts as one without these values.
"""

import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from restora.monitor import Monitor
from restora.reporting.naming import Name, names
from restora.reporting.values import finite, lookup
from restora.sweeping import ending
from restora.sweeping.plan import Job, Plan

STATES = ("running", "queued", "finished", "pruned", "stopped", "dead", "failed")


@dataclass(frozen=True)
class JobStatus:
    """One job.

    `words` are the settings that distinguish it from the others, as in a report. `value` is the best
    monitored figure so far, `seconds` the training time spent, `left` the expected remaining time, None if
    unknown.
    """

    job: Job
    words: str
    folder: str
    state: str
    metric: str
    value: float | None
    figure: str
    seconds: float
    left: float | None
    share: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "state": self.state,
            "overrides": self.job.overrides,
            "metric": self.metric,
            "value": self.value,
            "share": self.share,
            "seconds": round(self.seconds, 1),
            "seconds_left": None if self.left is None else round(self.left, 1),
            "reason": self.reason or None,
            "same_combinations": self.job.same,
        }


def statuses(plan: Plan) -> list[JobStatus]:
    """Every job of the plan, in its order."""
    read = [(job, *ending.status(plan.path(job))) for job in plan.jobs]
    spent: dict[str, list[float]] = {}
    for wanted in ("finished", "running", "stopped"):  # finished jobs give better estimates
        lengths: dict[str, list[float]] = {}
        for _, state, record in read:
            share = 1.0 if state == "finished" else _share(record)
            if state == wanted and share:
                lengths.setdefault(_kind(record), []).append(_seconds(record) / share)
        spent = {**lengths, **spent}
    known = {kind: statistics.fmean(seconds) for kind, seconds in spent.items()}
    every = [value for seconds in spent.values() for value in seconds]
    called = names(
        [{"overrides": job.overrides, **record} for job, _, record in read], [job.name for job in plan.jobs]
    )
    found = []
    for (job, state, record), name in zip(read, called, strict=True):
        estimate = known.get(_kind(record))
        if estimate is None and job.identity in plan.hours:
            estimate = 3600 * plan.hours[job.identity]
        if estimate is None and every:
            estimate = statistics.fmean(every)
        found.append(_status(plan, job, name, state, record, estimate))
    return found


def _status(
    plan: Plan, job: Job, name: Name, state: str, record: dict[str, Any], estimate: float | None
) -> JobStatus:
    monitor = _monitor(record)
    value = finite(lookup(record, "metrics", "best", monitor.metric))
    share, seconds = _share(record), _seconds(record)
    left: float | None = None
    if state in ("running", "stopped", "dead") and share:
        left = seconds * (1 - share) / share - (_silent(record) if state == "running" else 0.0)
    elif state in ("queued", "running", "stopped", "dead") and estimate is not None:
        left = estimate - seconds
    return JobStatus(
        job=job,
        words=" ".join(f"{key}={value}" for key, value in name.words.items()),
        folder=str(plan.path(job)),
        state=state,
        metric=monitor.metric,
        value=value,
        figure="" if value is None else monitor.in_words(value),
        seconds=seconds,
        left=None if left is None else max(left, 0.0),
        share=share,
        reason=str(record.get("error") or "") if state in ("failed", "pruned") else "",
    )


def _monitor(record: dict[str, Any]) -> Monitor:
    try:
        return Monitor.of(record.get("config") or {})
    except (ValueError, TypeError, AttributeError):
        return Monitor()


def _kind(record: dict[str, Any]) -> str:
    """A key that is equal for runs of equal cost: network, patches, length, precision, device."""
    config = record.get("config") or {}
    sizes = [lookup(config, "data", key) for key in ("patch_size", "batch_size", "stages")]
    lengths = ("max_steps", "max_time", "max_epochs", "precision", "accelerator")
    length = [lookup(config, "trainer", key) for key in lengths]
    return repr((lookup(config, "network"), sizes, length, lookup(config, "compile")))


def _seconds(record: dict[str, Any]) -> float:
    return max(finite(lookup(record, "cost", "fit_seconds")) or 0.0, 0.0)


def _share(record: dict[str, Any]) -> float | None:
    share = finite(lookup(record, "cost", "share"))
    return share if share is not None and 0 < share <= 1 else None


def _silent(record: dict[str, Any]) -> float:
    """Seconds since the run's last heartbeat; 0 where the clock of its machine is ahead of this one's."""
    try:
        beat = datetime.fromisoformat(record["process"]["heartbeat"])
        return max(time.time() - beat.timestamp(), 0.0)
    except (KeyError, TypeError, ValueError):
        return 0.0


def counts(jobs: list[JobStatus]) -> dict[str, int]:
    """The number of jobs in each state that occurs."""
    return {state: n for state in STATES if (n := sum(job.state == state for job in jobs))}


def as_dict(plan: Plan) -> dict[str, Any]:
    """The content of `restora sweep FOLDER --json`."""
    jobs = statuses(plan)
    known = [job.left for job in jobs if job.left is not None]
    return {
        "folder": str(plan.folder),
        "command": plan.command,
        "counts": counts(jobs),
        "seconds": round(sum(job.seconds for job in jobs), 1),
        "seconds_left": round(sum(known), 1) if known else None,
        "jobs": [job.as_dict() for job in jobs],
    }
