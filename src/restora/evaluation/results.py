"""The figures of one method on one benchmark, and the two files that keep them.

`summary.json` holds the means, their bootstrap intervals and everything they depend on; `per_image.csv` one
line per photo. Both are read back by `read_result`, for comparisons made later.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restora.evaluation.scorer import DECIMALS
from restora.evaluation.statistics import bootstrap_mean
from restora.files import read_json, table_text, table_word, write_json, write_whole
from restora.metrics.registry import METRICS
from restora.walking import files_below

FORMAT = 1
SUMMARY, PER_IMAGE = "summary.json", "per_image.csv"
_RENAMED = {"told_sigma": "conditioned_sigma"}
"""Keys of a protocol in older files, and their present names."""
SAME_INPUT = 0.01
"""dB; devices and versions that decode photos may differ by less."""
CUT_SHORT = "cut_short"
"""The column of what ended the computation of a photo early."""
Row = dict[str, Any]
"""name, psnr, ssim, input_psnr, input_ssim, …, seconds, height, width, and the facts of the benchmark."""


@dataclass
class Result:
    """The figures of one method on one benchmark.

    `rows` are in the order of the photos; `not_computed` has the reasons for missing metrics; `effect` is the
    change by the user's options, `leakage` the photos that are among the training photos.
    """

    name: str
    benchmark: dict[str, Any]
    rows: list[Row]
    method: dict[str, Any] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    effect: dict[str, Any] | None = None
    leakage: dict[str, Any] | None = None

    def scores(self, metric: str = "psnr") -> dict[str, float]:
        """Photo name -> score, of the photos that have one."""
        return {row["name"]: row[metric] for row in self.rows if row.get(metric) is not None}

    def mean(self, metric: str = "psnr") -> float | None:
        """The mean over photos; None where no photo has the metric."""
        values = list(self.scores(metric).values())
        return math.fsum(values) / len(values) if values else None

    @property
    def cut_short(self) -> list[Row]:
        """The rows of photos whose computation ended early."""
        return [row for row in self.rows if row.get(CUT_SHORT)]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics with figures."""
        return [name for name in METRICS if any(row.get(name) is not None for row in self.rows)]

    def summary(self) -> dict[str, Any]:
        """The contents of summary.json; infinite numbers become null, with a reason in `not_computed`."""
        means = {metric: self.mean(metric) for metric in self.metrics}
        inputs = {metric: self.mean(f"input_{metric}") for metric in self.metrics}
        reasons = dict(self.not_computed)
        for metric, value in means.items():
            if value is not None and not math.isfinite(value):
                reasons[metric] = "infinite: a restored photo equals its original"
        return {
            "format": FORMAT,
            "name": self.name,
            **{metric: _finite(value) for metric, value in means.items()},
            "images": len(self.rows),
            "cut_short": len(self.cut_short),
            "protocol": self.benchmark,
            "input": {metric: _finite(value) for metric, value in inputs.items() if value is not None},
            "interval": {metric: _interval(self.scores(metric).values()) for metric in means},
            "not_computed": reasons,
            "method": self.method,
            "effect": self.effect,
            "leakage": self.leakage,
            "seconds": {"total": math.fsum(row["seconds"] for row in self.rows)},
            "machine": self.machine,
        }

    def write(self, folder: Path) -> None:
        """Writes both files into `folder`, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        columns = list({column: None for row in self.rows for column in row})
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns)
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in self.rows)
        write_whole(folder / PER_IMAGE, table.getvalue())
        write_json(folder / SUMMARY, self.summary())


def read_result(folder: str | Path) -> Result:
    """Reads what `Result.write` wrote. Raises ValueError that names what is missing."""
    folder = Path(folder)
    for name in (SUMMARY, PER_IMAGE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: name a folder that `restora evaluate output=…` wrote")
    try:
        summary = read_json(folder / SUMMARY)
        with (folder / PER_IMAGE).open(newline="", encoding="utf-8") as file:
            rows = [{key: _number(key, value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{folder} cannot be read as results: {error}") from error
    sections = ("protocol", "method", "not_computed", "machine", "effect", "leakage")
    if not (
        isinstance(summary, dict)
        and all(isinstance(summary.get(key) or {}, dict) for key in sections)
        and rows
        and all("name" in row for row in rows)
    ):
        raise ValueError(
            f"{folder} cannot be read as results: {SUMMARY} or {PER_IMAGE} has unexpected content"
        )
    return Result(
        name=str(summary.get("name") or folder.name),
        benchmark={_RENAMED.get(key, key): value for key, value in (summary.get("protocol") or {}).items()},
        rows=rows,
        method=summary.get("method") or {},
        not_computed=summary.get("not_computed") or {},
        machine=summary.get("machine") or {},
        effect=summary.get("effect"),
        leakage=summary.get("leakage"),
    )


def read_seeds(folder: str | Path) -> list[Result]:
    """The results in `folder` itself, or else those of its subfolders: the seeds of one method."""
    folder = Path(folder)
    if (folder / PER_IMAGE).is_file():
        return [read_result(folder)]
    found = sorted(path.parent for path in files_below(folder) if path.name == PER_IMAGE)
    if not found:
        raise ValueError(
            f"there are no results ({PER_IMAGE}) in {folder}: run `restora evaluate output={folder}` first"
        )
    results = [read_result(path) for path in found]
    if not one_method(results):
        listed = ", ".join(map(str, found[:3])) + (", …" if len(found) > 3 else "")
        raise ValueError(
            f"{folder} holds results of several methods ({listed}), and a folder of results is for the seeds "
            "of one: name each folder"
        )
    return results


def same_benchmark(results: Iterable[Result]) -> str | None:
    """None where all were scored alike, else the first setting that differs, in words."""
    first, *others = results
    ignored = {"root", "limit"}
    for other in others:
        for key in {**first.benchmark, **other.benchmark}:
            a, b = first.benchmark.get(key), other.benchmark.get(key)
            if key not in ignored and a != b:
                return f"{key} is {a} for {first.name} and {b} for {other.name}"
    return None


def same_photos(results: Sequence[Result]) -> str | None:
    """None where photos of one name were one photo with one degradation in all results, else what differs.

    Folders may hold other photos by the same names. The degraded photos tell: their scores do not depend on
    the method.
    """
    first: dict[str, tuple[Result, Row]] = {}
    for result in results:
        for row in result.rows:
            before, known = first.setdefault(row["name"], (result, row))
            for key in ("height", "width", "input_psnr"):
                a, b = known.get(key), row.get(key)
                if a is not None and b is not None and not (a == b or abs(a - b) <= SAME_INPUT):
                    word = key.replace("_psnr", " PSNR")
                    return f"{row['name']} has {word} {a:g} for {before.name} and {b:g} for {result.name}"
    return None


def one_method(results: Iterable[Result]) -> bool:
    """Whether all results, of which each may be another seed, are of one method with the same options."""
    keys = ("network", "parameters", "classical", "method", "settings", "options")
    found = [{key: result.method.get(key) for key in keys} for result in results if result.method]
    return all(method == found[0] for method in found)


def _interval(values: Iterable[float]) -> list[float] | None:
    finite = list(values)
    if not finite or not all(map(math.isfinite, finite)):
        return None
    interval = bootstrap_mean(finite)
    return [interval.low, interval.high]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return table_text(value)
    return f"{value:.{DECIMALS}f}" if isinstance(value, float) else value


def _number(key: str, value: str) -> Any:
    if key == "name":
        return table_word(value)
    if value == "":
        return None
    return table_word(value) if key == CUT_SHORT else float(value)
