"""The run's metrics as one wide CSV file that spreadsheets and pandas open directly."""

import csv
import io
import logging
import math
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from restora.files import write_whole
from restora.run_state import check_place

_FIXED = ("step", "epoch", "seconds")
log = logging.getLogger(__name__)


class MetricsCsv(Logger):
    """Writes `metrics.csv`: step, epoch, seconds of training so far, then a column per metric.

    A cell is empty where nothing was logged.

    Rows are appended; a new metric adds a column and rewrites the file once. When a run is resumed from step
    n, rows from step n on are dropped first, as they will be computed again.
    """

    def __init__(self, *, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns: list[str] = list(_FIXED)
        self.offset = 0.0
        self.earlier: set[tuple[int, frozenset[str]]] = set()
        """Step and columns of the rows that this run wrote before it was resumed."""
        self.started = time.monotonic()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **options: Any) -> None:
        """Does nothing: the configuration is in run.json."""

    def begin(self) -> None:
        """Starts the clock: packing photos, or waiting for W&B, is no training."""
        self.started = time.monotonic()

    @rank_zero_only
    def continue_from(self, steps: int) -> bool:
        """Keeps the rows of the first `steps` steps from before the run was resumed.

        Returns whether the last of these steps was validated. Damaged rows are dropped with a warning.
        """
        rows = [row for row in self._read() if int(row["step"]) < steps]
        self.columns = list(rows[0]) if rows else list(_FIXED)
        self.offset = max((float(row["seconds"]) for row in rows), default=0.0)
        self.started = time.monotonic()
        self._write(rows)
        self.earlier = {
            (int(row["step"]), frozenset(key for key, value in row.items() if value)) for row in rows
        }
        last = (row for row in rows if int(row["step"]) == steps - 1)
        return any(value for row in last for key, value in row.items() if key.startswith("val/"))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {key: float(v) if isinstance(v, Tensor) else v for key, v in metrics.items()}
        row["step"] = step or 0
        row["seconds"] = round(self.offset + time.monotonic() - self.started, 3)
        filled = (int(row["step"]), frozenset(row))
        if filled in self.earlier:
            return  # a validation repeated by a resumed run
        new = [key for key in row if key not in self.columns]
        if new or not self.path.exists():
            check_place(self.path.parent)
            rows = self._read()
            self.columns += new
            self._write([*rows, row])
            return
        try:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(row)
        except OSError as error:  # of a full disk, which has no file's name
            error.filename = str(self.path)
            raise

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode(errors="replace")
        header, *others = [_fields(line) for line in text.splitlines()] or [[]]
        rows = [dict(zip(header, fields, strict=True)) for fields in others if len(fields) == len(header)]
        whole = [row for row in rows if _is_whole(row)]
        if len(whole) < len(others) or not text.startswith("step,"):
            lost = len(others) - len(whole)
            log.warning("%s is damaged: %d rows of it cannot be read and are left out", self.path, lost)
        return whole

    def _write(self, rows: list[dict[str, Any]]) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, table.getvalue())


def _fields(line: str) -> list[str]:
    """Parses one line alone, so that a stray quote in a damaged file does not swallow later lines."""
    try:
        return next(csv.reader([line.replace("\0", "\ufffd")]), [])
    except csv.Error:  # a field longer than the csv limit
        return []


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Whether a row has numbers for step and seconds, and numbers or empty cells elsewhere."""
    try:
        for value in row.values():
            float(value or 0)
        return int(row["step"]) >= 0 and math.isfinite(float(row["seconds"]))
    except (KeyError, ValueError):
        return False
