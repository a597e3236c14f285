"""Chooses the best of several runs, by validation and among runs of one problem only.

Enters: run records. Leaves: one run, with a warning if its results are no better than its input. Note:
held-out photos, which results are reported on, are not used for the choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restora import registry
from restora.artifact.checkpoint import find_runs, read_record
from restora.files import json_text
from restora.monitor import Monitor
from restora.words import worse_than_input

_PHOTOS = "the fingerprint of the validation photos"
"""Older records have none."""
_CHANNELS = {"gray": 1, "rgb": 3}
_USUAL_PROTOCOL = {"color": None, "border": None, "round_output": True, "y_rounded": False}


@dataclass(frozen=True)
class Chosen:
    """The best run of several: `value` is its monitored figure, `warning` empty where it improves photos."""

    run: Path
    record: dict[str, Any]
    monitor: Monitor
    value: float
    warning: str


def problem(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must agree for two runs to be comparable: task, degradation, photos, protocol.

    A data set may lie in another `data_dir` on another machine. Runs of several frames and of one are
    comparable: they restore the same photos, with the same noise.
    """
    config = _mapping(record.get("config"))
    data = _mapping(config.get("data"))
    protocol = _mapping(config.get("protocol"))
    return {
        "task": record.get("task"),
        "degradation": registry.stored(config.get("degradation"), "degradation"),
        "data.source": _without(registry.stored(data.get("source"), "source"), config.get("data_dir")),
        "data.channels": _CHANNELS.get(str(data.get("channels")), data.get("channels")),
        "data.test_crop": data.get("test_crop"),
        "data.motion": data.get("motion"),
        "protocol": {k: v for k, v in protocol.items() if _USUAL_PROTOCOL.get(k, ...) != v},
    }


def _without(node: Any, folder: Any) -> Any:
    """A description whose paths below `folder` are relative to it."""
    if isinstance(node, dict):
        return {key: _without(value, folder) for key, value in node.items()}
    known = isinstance(node, str) and isinstance(folder, str) and folder != ""
    return node.removeprefix(f"{folder.rstrip('/')}/") if known else node


def validated(record: Mapping[str, Any]) -> float | None:
    """The monitored figure of a run's best checkpoint, None where there is none."""
    best = _mapping(_mapping(record.get("metrics")).get("best"))
    value = best.get(Monitor.of(_mapping(record.get("config"))).metric)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def best_run(folder: str | Path) -> Chosen:
    """The finished run at or below `folder` that is best in validation.

    Raises ValueError where there is none, and where the runs did not solve the same problem.
    """
    runs: list[tuple[Path, dict[str, Any], float]] = []
    for run in find_runs(folder):
        try:
            record = read_record(run)
        except ValueError:
            continue  # half-written by a run that was killed: not finished, so not a candidate
        value = validated(record)
        if record.get("status") == "finished" and value is not None:
            runs.append((run, record, value))
    if not runs:
        raise ValueError(f"{folder} has no finished run with a validation score to select by")
    _check_same_problem(runs)
    monitor = Monitor.of(_mapping(runs[0][1].get("config")))
    best = runs[0]
    for candidate in runs[1:]:
        if monitor.better(candidate[2], best[2]):
            best = candidate
    run, record, value = best
    return Chosen(run, record, monitor, value, _warning(record))


def _check_same_problem(runs: Sequence[tuple[Path, dict[str, Any], float]]) -> None:
    first, wanted = runs[0][0], _chosen_by(runs[0][1])
    for run, record, _ in runs[1:]:
        for key, value in _chosen_by(record).items():
            if value != wanted[key] and not (key == _PHOTOS and None in (value, wanted[key])):
                raise ValueError(
                    f"{run} and {first} were not trained and validated alike: {key} is {_short(value)} and "
                    f"{_short(wanted[key])}. Name one run, or a folder of comparable runs"
                )


def _chosen_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """The problem, and how validation measured it."""
    config = _mapping(record.get("config"))
    monitor = Monitor.of(config)
    return problem(record) | {
        "data.val_crop": _mapping(config.get("data")).get("val_crop"),
        "trainer.limit_val_batches": _mapping(config.get("trainer")).get("limit_val_batches", 1.0),
        "monitor": f"{monitor.metric} ({monitor.direction})",
        _PHOTOS: _mapping(record.get("photos")).get("val"),
    }


def _warning(record: Mapping[str, Any]) -> str:
    """A warning if the run's best checkpoint is no better than its input in validation, else empty."""
    best = _mapping(_mapping(record.get("metrics")).get("best"))
    scores = {key.removeprefix("val/"): value for key, value in best.items()}
    return worse_than_input(scores, record.get("reference"))


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json_text(value, indent=None)
    return text if len(text) <= 80 else f"{text[:79]}…"
