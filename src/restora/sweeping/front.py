"""The result of a search from the folders of its jobs alone, known also while the search runs."""

from typing import Any

from restora.sweeping import ending
from restora.sweeping.plan import Plan
from restora.sweeping.search import Settings, value_of

Row = tuple[str, dict[str, float], dict[str, Any]]


def front(plan: Plan) -> list[Row]:
    """Folder, objectives and point of the jobs that no other beats; nothing for a sweep that is no search."""
    if not plan.settings.get("search"):
        return []
    rows: list[Row] = []
    ways: dict[str, str] = {}
    for job in plan.jobs:
        state, record = ending.status(plan.path(job))
        if state != "finished":
            continue
        monitor = (record.get("config") or {}).get("monitor") or {"metric": "val/psnr", "direction": "max"}
        ways = ways or Settings.of(plan.settings["search"], monitor).objectives
        values = {name: value for name in ways if (value := value_of(name, record)) is not None}
        if len(values) == len(ways):
            point = [word.partition("=") for word in job.overrides if word not in plan.overrides]
            rows.append((job.name, values, {key: _number(value) for key, _, value in point}))
    found = [row for row in rows if not any(_beats(other[1], row[1], ways) for other in rows)]
    return sorted(found, key=lambda row: list(row[1].values()))


def _beats(one: dict[str, float], other: dict[str, float], ways: dict[str, str]) -> bool:
    gains = [
        one[name] - other[name] if way == "max" else other[name] - one[name] for name, way in ways.items()
    ]
    return min(gains) >= 0 and max(gains) > 0


def _number(word: str) -> Any:
    try:
        return float(word) if "." in word or "e" in word else word
    except ValueError:
        return word
