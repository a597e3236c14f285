"""Finds the runs of a group that are the seeds of one method: they differ only in their seed."""

import os
from collections import Counter
from collections.abc import Sequence

from restora.files import json_text
from restora.reporting.runs import Group, Run, named
from restora.reporting.values import as_text, flat, surrounds


def seeds_of_methods(group: Group) -> dict[str, list[Run]]:
    """Label -> the seeds of a method, in the order of the group.

    A run without a score is a method of its own; runs that repeat seeds form a further method.
    """
    alike: dict[str, list[Run]] = {}
    times: Counter[str] = Counter()
    for run in group.runs:
        settings = _without_seed(run)
        repeated = f"{settings} {run.number('seed')}"
        key = f"{settings} {times[repeated]}" if run.psnr is not None else str(run.folder)
        times[repeated] += 1
        alike.setdefault(key, []).append(run)
    labels = [runs[0].label if len(runs) == 1 else runs[0].name.method for runs in alike.values()]
    placed = [_with_folder(runs) for runs in alike.values()]
    return {
        label if labels.count(label) == 1 else other if placed.count(other) == 1 else runs[0].label: runs
        for label, other, runs in zip(labels, placed, alike.values(), strict=True)
    }


def _with_folder(runs: Sequence[Run]) -> str:
    """The name of a method with the folder of its seeds, if no setting distinguishes it from another one."""
    common = os.path.commonpath([run.name.place for run in runs]) if all(r.name.place for r in runs) else ""
    return f"{runs[0].name.method} ({common})" if len(runs) > 1 and common else runs[0].label


def _without_seed(run: Run) -> str:
    """The settings of a run that determine its result as text, without its seed."""
    own = str(run.config.get("run_dir") or run.folder)
    data = f"{run.config.get('data_dir')}/"
    settings = {
        name: as_text(value).replace(own, "RUN").removeprefix(data)
        for name, value in flat(named(run.config)).items()
        if name.rpartition(".")[2] != "seed" and not surrounds(name)
    }
    return json_text([run.text("name"), run.text("network"), settings], sort_keys=True)
