"""The runs of a report as one flat table for other programs: a row for each held-out photo of each run.

Enters: groups of runs, and the baselines on their photos. Leaves: a CSV or a Parquet file. A run without
held-out figures has one row. Settings that differ among the runs are columns, named by their full keys.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from restora.files import check_writable, table_text, write_whole
from restora.reporting.baselines import Baseline
from restora.reporting.runs import Group, Run, differences
from restora.reporting.values import as_text, finite, flat, lookup

Row = dict[str, Any]
_RECORDED: Mapping[str, tuple[str, ...]] = {
    "experiment": ("experiment",),
    "task": ("task",),
    "network": ("network",),
    "seed": ("seed",),
    "reference": ("reference",),
    "parameters": ("parameters",),
    "macs_256": ("macs_256",),
    "steps": ("cost", "steps"),
    "fit_seconds": ("cost", "fit_seconds"),
    "cpu": ("machine", "cpu"),
    "gpu": ("machine", "gpu"),
    "torch": ("versions", "torch"),
    "commit": ("git", "commit"),
    "started": ("started",),
}
"""Column -> its path in run.json."""


def check_data_file(path: Path) -> None:
    """Raises ValueError, before any computation, if `write_table` cannot write the table."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"--data {path}: the file name must end with .csv or .parquet")
    check_writable(path, setting="--data")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"--data {path} needs pyarrow: pip install 'restora[parquet]', or name a file.csv"
            ) from error


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows atomically in the format of the file's ending; a column has one type."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _of_one_type([row.get(name) for row in rows]) for name in names}
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([table_text(name) for name in columns])
        for values in zip(*columns.values(), strict=True):
            writer.writerow([table_text(value) if isinstance(value, str) else value for value in values])
        write_whole(path, text.getvalue())
        return
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    write_whole(path, sink.getvalue().to_pybytes())


def table_rows(groups: Sequence[tuple[Group, Sequence[Baseline]]], root: Path) -> Iterator[Row]:
    """The rows of each group: its runs, best first, then its baselines; a row for each photo."""
    varying = list(differences([run for group, _ in groups for run in group.runs]))
    for group, baselines in groups:
        for run in group.runs:
            known = {"group": group.title, "run": run.label, **_of_run(run, root, varying)}
            for photo in _photos(run) or [{}]:
                yield known | photo
        for baseline in baselines:
            known = {"group": group.title, "run": baseline.name, "status": "baseline"}
            for scores in baseline.images:
                figures = asdict(scores)
                yield known | {"photo": figures.pop("name")} | figures


def _of_run(run: Run, root: Path, varying: Sequence[str]) -> Row:
    folder = run.folder.relative_to(root).as_posix() or "."
    recorded = {name: lookup(run.record, *place) for name, place in _RECORDED.items()}
    settings = flat(run.config)
    return {
        "folder": folder,
        "status": run.status,
        **{name: _cell(value) for name, value in recorded.items()},
        **{name: _cell(settings[name]) for name in varying if name in settings and name not in recorded},
    }


def _photos(run: Run) -> list[Row]:
    """All finite figures of each held-out photo, by their names."""
    images = lookup(run.record, "test", "images")
    rows = []
    for image in images if isinstance(images, list) else []:
        if isinstance(image, dict) and isinstance(image.get("name"), str):
            figures = {key: finite(value) for key, value in image.items() if key != "name"}
            rows.append({"photo": image["name"], **{k: v for k, v in figures.items() if v is not None}})
    return rows


def _cell(value: Any) -> Any:
    """Text, a finite number or None unchanged; anything else as text."""
    return value if value is None or isinstance(value, str) or finite(value) is not None else as_text(value)


def _of_one_type(values: Sequence[Any]) -> list[Any]:
    """Values of one type: all text if any is, else all 64-bit integers or all floats; None stays."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return [None if value is None else as_text(value) for value in values]
    if any(isinstance(value, float) or not -(2**63) <= value < 2**63 for value in known):
        return [None if value is None else float(value) for value in values]
    return list(values)
