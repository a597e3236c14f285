"""Finds the runs of a group that are the seeds of one method: they differ only in their seed."""

from collections import Counter

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
    taken = zip(labels, alike.values(), strict=True)
    return {label if labels.count(label) == 1 else runs[0].label: runs for label, runs in taken}


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
