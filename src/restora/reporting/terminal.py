"""The leaderboard in a terminal: a line per method, with as many columns as fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from restora.reporting.leaderboard import Row, count, decimals, duration, leads, rank_label

if TYPE_CHECKING:
    from rich.console import Group

_GAP = 3
_LEFT_OUT_FIRST = ("s/photo", "params", "training", "SSIM", "gain")
"""Columns that are left out for long names; the page has them all."""
ROWS = 40


@dataclass(frozen=True)
class _Line:
    rank: str
    name: str
    cells: dict[str, str]
    style: str | None


def terminal_table(title: str, rows: Sequence[Row], width: int = 80) -> "Group":
    """The leaderboard at `width` columns. Names that are still too long are folded."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    lines = [_line(row) for row in shown(rows)]
    columns = _columns(lines, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("name", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = [line.cells[name] for name in columns]
        table.add_row(line.rank, escape(line.name), *cells, style=line.style)
    return Group(Text(title, style="table.title"), table)  # a title of the table's breaks at its width


def shown(rows: Sequence[Row]) -> list[Row]:
    """All rows; of very many, only the first without seeds, and always the degraded photos."""
    if len(rows) <= ROWS:
        return list(rows)
    methods = [row for row in rows if row.kind != "seed"]
    return [row for place, row in enumerate(methods) if place < ROWS or row.kind == "input"]


def _line(row: Row) -> _Line:
    status = row.run.status if row.run is not None else "finished"
    name = f"  {row.run.name.seed or row.label}" if row.kind == "seed" and row.run else row.label
    trained = row.kind in ("run", "seed")
    cells = {
        "PSNR": decimals(row.psnr, 2),
        "gain": decimals(row.gain, 2, sign=True) if row.kind != "input" else "",
        "SSIM": decimals(row.ssim, 4),
        "params": count(row.parameters) if trained else "",
        "training": duration(row.fit_seconds) if trained else "",
        "s/photo": decimals(row.photo_seconds, 3) if row.kind != "input" else "",
    }
    style = "bold" if leads(row) else None if row.kind == "run" else "dim"
    return _Line(
        rank_label(row),
        name if status == "finished" else f"{name} ({status})",
        cells,
        "red" if row.is_worse else style,
    )


def _columns(lines: Sequence[_Line], width: int) -> list[str]:
    """The columns beside rank and name that fit beside the longest name."""
    from rich.cells import cell_len

    columns = list(lines[0].cells) if lines else []
    wide = {name: max(map(cell_len, [name, *(line.cells[name] for line in lines)])) for name in columns}
    names = max((cell_len(line.name) for line in lines), default=0)
    ranks = max((cell_len(line.rank) for line in lines), default=0)
    for name in _LEFT_OUT_FIRST:
        if ranks + names + sum(wide[column] + _GAP for column in columns) + _GAP <= width:
            break
        columns.remove(name)
    return columns
