"""The leaderboard of a group of runs: rows, what they say in words, and the table in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from restora.apps.report_baselines import Baseline
from restora.apps.report_runs import Group, Run

if TYPE_CHECKING:
    from rich.table import Table

Kind = Literal["run", "classical", "input"]
ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard. `gain` is in dB over the degraded photos, `photo_seconds` the mean per
    photo."""

    kind: Kind
    label: str
    family: str
    psnr: float | None
    ssim: float | None
    gain: float | None
    parameters: float | None = None
    macs: float | None = None
    fit_seconds: float | None = None
    photo_seconds: float | None = None
    run: Run | None = None


def leaderboard(group: Group, baselines: Sequence[Baseline]) -> list[Row]:
    """Runs, classical filters and the degraded photos themselves by PSNR; runs without a score come last."""
    before = group.input_psnr
    rows = [_run_row(run) for run in group.runs]
    for baseline in baselines:
        gain = None if before is None else baseline.psnr - before
        rows.append(
            Row(
                "classical",
                baseline.name.replace("_", " "),
                "classical filter",
                baseline.psnr,
                baseline.ssim,
                gain,
                photo_seconds=baseline.seconds,
            )
        )
    if before is not None:
        rows.append(Row("input", "degraded input", "", before, group.input_ssim, 0.0))
    return sorted(rows, key=lambda row: (row.psnr is None, -(row.psnr or 0.0)))


def _run_row(run: Run) -> Row:
    return Row(
        "run",
        run.label,
        run.text("family").replace("_", " "),
        run.psnr,
        run.ssim,
        run.gain,
        parameters=run.number("parameters"),
        macs=run.number("macs_256"),
        fit_seconds=run.number("cost", "fit_seconds"),
        photo_seconds=run.seconds_per_photo,
        run=run,
    )


def verdict(rows: Sequence[Row]) -> list[str]:
    """What the leaderboard says, in sentences; empty where no run was scored."""
    runs = [row for row in rows if row.kind == "run" and row.psnr is not None]
    if not runs:
        return []
    best = runs[0]
    assert best.psnr is not None
    over = f", {best.gain:+.2f} dB over the degraded photos" if best.gain is not None else ""
    sentences = [f"Best: {best.label}, {best.psnr:.2f} dB{over}."]
    classical = next((row for row in rows if row.kind == "classical"), None)
    if classical is not None and classical.psnr is not None:
        lead = best.psnr - classical.psnr
        where = "ahead of" if lead > 0 else "behind"
        sentences.append(
            f"It is {abs(lead):.2f} dB {where} the best classical filter "
            f"({classical.label}, {classical.psnr:.2f} dB)."
        )
    families: dict[str, float] = {}
    for row in runs:
        if row.gain is not None and row.family not in families:
            families[row.family] = row.gain
    if len(families) > 1:
        gains = ", ".join(f"{family} {gain:+.2f}" for family, gain in families.items())
        sentences.append(f"Gain in dB over the degraded photos, best run of each family: {gains}.")
    return sentences


def terminal_table(title: str, rows: Sequence[Row]) -> "Table":
    """The leaderboard at 80 columns."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=False
    )
    table.add_column("#", justify="right", style="dim")
    table.add_column("name", overflow="fold", max_width=24)
    for name in ("PSNR", "gain", "SSIM", "params", "training", "s/photo"):
        table.add_column(name, justify="right", no_wrap=True)
    place = 0
    for row in rows:
        place += row.kind == "run" and row.psnr is not None
        status = row.run.status if row.run is not None else "finished"
        label = row.label if status == "finished" else f"{row.label} ({status})"
        best = row.kind == "run" and place == 1 and row.psnr is not None
        table.add_row(
            str(place) if row.kind == "run" and row.psnr is not None else "",
            escape(label),
            decimals(row.psnr, 2),
            decimals(row.gain, 2, sign=True) if row.kind != "input" else "",
            decimals(row.ssim, 4),
            count(row.parameters) if row.kind == "run" else "",
            duration(row.fit_seconds) if row.kind == "run" else "",
            decimals(row.photo_seconds, 3) if row.kind != "input" else "",
            style="bold" if best else None if row.kind == "run" else "dim",
        )
    return table


def decimals(value: float | None, places: int, *, sign: bool = False) -> str:
    return ABSENT if value is None else f"{value:{'+' if sign else ''}.{places}f}"


def count(value: float | None) -> str:
    """1234567 -> 1.23 M."""
    if value is None:
        return ABSENT
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """75 -> 1 min 15 s."""
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
