"""The report as one HTML file: styles, scripts, plotly and photos inside, no outside request.

Python writes the text and the tables, so the page is readable without scripts; `page.js` draws the curves,
sorts the tables and compares the photos from one block of JSON.
"""

import html
import string
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from restora import __version__
from restora.files import json_text
from restora.reporting.leaderboard import (
    ABSENT,
    Row,
    count,
    decimals,
    duration,
    legend,
    rank_label,
    verdict,
)
from restora.reporting.photos import embedded_photos, left_out
from restora.reporting.runs import Group, Problem, Run, differences
from restora.reporting.values import lookup
from restora.words import in_short

COLOURS = (
    "#2f7ed8", "#e6862b", "#2ca58d", "#c8509b", "#8d6bd6",
    "#c9a400", "#d1495b", "#45a5c4", "#7a9a3a", "#8c8c8c",
)  # fmt: skip


SETTINGS_OPEN = 12
"""Up to this many runs, the table of their settings is open initially."""


def page(
    folders: Sequence[Path], groups: Sequence[tuple[Group, Sequence[Row]]], problems: Sequence[Problem]
) -> str:
    """The whole page for the groups below `folders`, each with the rows of its leaderboard."""
    from plotly.offline import get_plotlyjs

    sections, data = [], []
    scored = sum(bool(group.scored) for group, _ in groups)
    for index, (group, rows) in enumerate(groups):
        photos = embedded_photos(group, groups=scored)
        data.append(_group_data(group, rows, photos))
        note = left_out(group, groups=scored) if photos else None
        sections.append(_section(index, group, rows, photos=note))
    files = resources.files("restora.reporting")
    template = string.Template((files / "page.html").read_text(encoding="utf-8"))
    runs = sum(len(group.runs) for group, _ in groups)
    return template.substitute(
        title=html.escape(f"restora: {', '.join(folder.resolve().name for folder in folders)}"),
        folder=html.escape(", ".join(map(str, folders))),
        runs=f"{runs} run{'s' if runs != 1 else ''}",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        style=(files / "page.css").read_text(encoding="utf-8"),
        navigation=_navigation([group for group, _ in groups]),
        sections="\n".join(sections) + _problems(problems),
        data=json_text(data, indent=None).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        script=(files / "page.js").read_text(encoding="utf-8"),
    )


def _navigation(groups: Sequence[Group]) -> str:
    if len(groups) < 2:
        return ""
    links = "".join(f'<a href="#group{i}">{html.escape(group.title)}</a>' for i, group in enumerate(groups))
    return f'<nav aria-label="comparisons">{links}</nav>'


def _group_data(group: Group, rows: Sequence[Row], photos: list[dict[str, Any]]) -> dict[str, Any]:
    """The data that the scripts draw."""
    points, lines, colour = [], [], 0
    for row in rows:
        if row.run is None:
            if row.kind == "classical":
                lines.append({"label": row.label, "psnr": row.psnr})
            continue
        points.append(
            {
                "label": row.label,
                "colour": COLOURS[colour % len(COLOURS)],
                "psnr": row.psnr,
                "parameters": row.parameters,
                "macs": row.macs,
                "fit": row.fit_seconds,
                "photo": row.photo_seconds,
                "step": [point[0] for point in row.run.curve],
                "seconds": [point[1] for point in row.run.curve],
                "val": [round(point[2], 4) for point in row.run.curve],
            }
        )
        colour += 1
    return {"runs": points, "lines": lines[:1], "photos": photos, "monitor": group.monitor.name}


def _metric_words(name: str) -> str:
    return html.escape(name.upper() if name in ("psnr", "ssim") else name)


def _section(index: int, group: Group, rows: Sequence[Row], *, photos: str | None) -> str:
    """`photos` says which of them are shown; None without any."""
    sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in verdict(rows))
    parts = [
        f'<section class="group" id="group{index}" data-group="{index}">',
        f"<h2>{html.escape(group.title)}</h2>",
        f'<div class="verdict">{sentences}</div>' if sentences else "",
        _table(rows),
        f'<p class="legend">{html.escape(legend(rows))}</p>' if legend(rows) else "",
        _failures(group.runs),
    ]
    if any(run.curve for run in group.runs):
        parts.append(
            '<div class="panels"><figure><header><h3>Validation'
            f" {_metric_words(group.monitor.name)} during training</h3>"
            '<div class="choice" data-plot="curves">'
            '<button data-x="seconds" aria-pressed="true">time</button>'
            '<button data-x="step" aria-pressed="false">steps</button></div></header>'
            '<div class="plot curves"></div></figure>'
        )
        parts.append(
            "<figure><header><h3>Held-out PSNR against cost</h3>"
            '<div class="choice" data-plot="cost"><button data-x="parameters" aria-pressed="true">parameters'
            '</button><button data-x="macs" aria-pressed="false">MACs</button>'
            '<button data-x="fit" aria-pressed="false">training time</button>'
            '<button data-x="photo" aria-pressed="false">time per photo</button></div></header>'
            '<div class="plot cost"></div></figure></div>'
        )
    if photos is not None:
        hint = f'<p class="hint">{html.escape(photos)}</p>' if photos else ""
        parts.append(f'<div class="photos"><h3>Held-out photos</h3>{hint}</div>')
    parts += [_differences(group.runs), _origins(group.runs), "</section>"]
    return "\n".join(part for part in parts if part)


_COLUMNS = (
    ("", "text", ""),
    (
        "rank",
        "number",
        "1 + the number of significantly better methods, = if another method is not significantly different",
    ),
    ("family", "text", "training recipe"),
    ("PSNR dB", "number", "mean over the held-out photos, outputs rounded to 8 bits"),
    ("95 % CI", "number", "95 % confidence interval of the mean PSNR, by bootstrap over photos"),
    ("gain dB", "number", "PSNR minus that of the degraded photos"),
    ("SSIM", "number", "mean over the held-out photos"),
    ("parameters", "number", "trainable parameters"),
    ("MACs", "number", "multiply-accumulates for one photo of 256×256 pixels"),
    ("training", "number", "wall-clock time of the training"),
    ("time/photo", "number", "mean over the held-out photos, on the machine of the run"),
)


def _table(rows: Sequence[Row]) -> str:
    head = "".join(
        f'<th scope="col" class="{kind}" title="{html.escape(hint)}" tabindex="0">{name or "name"}</th>'
        for name, kind, hint in _COLUMNS
    )
    span = [row.psnr for row in rows if row.psnr is not None]
    low, high = (min(span), max(span)) if span else (0.0, 1.0)
    colours = iter(COLOURS * (1 + len(rows) // len(COLOURS)))
    body = "\n".join(_table_row(row, low, high, next(colours) if row.run is not None else "") for row in rows)
    return (
        '<div class="scroll"><table class="leaderboard sortable"><thead><tr>'
        f"{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _table_row(row: Row, low: float, high: float, colour: str) -> str:
    status = "".join(f" <em>{html.escape(note)}</em>" for note in _notes(row))
    name = row.run.name.seed or row.label if row.kind == "seed" and row.run else row.label
    dot = f'<i class="dot" style="background:{colour}"></i>' if colour else '<i class="dot none"></i>'
    share = 0.0 if row.psnr is None or high <= low else 100 * (row.psnr - low) / (high - low)
    cells = [
        f'<th scope="row" data-value="{html.escape(row.label)}">'
        f"<span>{dot}{html.escape(name)}{status}</span></th>",
        _cell(None if row.rank is None else float(row.rank.rank), rank_label(row)),
        f'<td data-value="{html.escape(row.family)}">{html.escape(row.family)}</td>',
        f'<td class="number bar" style="--share:{share:.1f}%" {_value(row.psnr)}>'
        f"{decimals(row.psnr, 2)}</td>",
        _interval(row),
        _cell(row.gain, decimals(row.gain, 2, sign=True) if row.kind != "input" else ""),
        _cell(row.ssim, decimals(row.ssim, 4)),
    ]
    trained = row.kind in ("run", "seed")
    cells += [
        _cell(row.parameters, count(row.parameters) if trained else ""),
        _cell(row.macs, count(row.macs) if trained else ""),
        _cell(row.fit_seconds, duration(row.fit_seconds) if trained else ""),
        _cell(row.photo_seconds, _short_time(row.photo_seconds) if row.kind != "input" else ""),
    ]
    return f'<tr class="{row.kind}">{"".join(cells)}</tr>'


def _notes(row: Row) -> list[str]:
    """Notes on a row beside its figures."""
    notes = [] if row.run is None or row.run.status == "finished" else [row.run.status]
    return [*notes, "worse than its input"] if row.is_worse else notes


def _cell(value: float | None, shown: str) -> str:
    return f'<td class="number" {_value(value)}>{shown}</td>'


def _interval(row: Row) -> str:
    interval = row.interval
    if interval is None:
        return _cell(None, "")
    return _cell(interval.high - interval.low, f"{interval.low:.2f}–{interval.high:.2f}")


def _value(value: float | None) -> str:
    return "" if value is None else f'data-value="{value!r}"'


def _short_time(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _failures(runs: Sequence[Run]) -> str:
    """Runs that did not finish, with their errors."""
    ended = [run for run in runs if run.status != "finished"]
    if not ended:
        return ""
    items = "".join(
        f"<li><b>{html.escape(run.label)}</b> {html.escape(run.status)}"
        + (f": <code>{html.escape(in_short(run.text('error')))}</code>" if run.text("error") else "")
        + (
            f": <code>{html.escape(run.resuming)}</code></li>"
            if run.status in ("stopped", "dead")
            else f" <small>{html.escape(str(run.folder))}</small></li>"
        )
        for run in ended
    )
    return f'<div class="failures"><h3>Not finished</h3><ul>{items}</ul></div>'


def _differences(runs: Sequence[Run]) -> str:
    """Settings that differ between the runs, one row per run; equivalent settings share a column."""
    if len(runs) < 2:
        return ""
    together: dict[tuple[str, ...], list[str]] = {}
    for name, values in differences(runs).items():
        together.setdefault(tuple(values), []).append(name)
    if not together:
        return ""
    columns = [
        (sorted(names, key=lambda name: (name.count("."), name)), values)
        for values, names in together.items()
    ]
    head = "".join(
        f'<th scope="col" title="{html.escape(", ".join(names))}">{html.escape(names[0])}'
        f"{f' +{len(names) - 1}' if len(names) > 1 else ''}</th>"
        for names, _ in columns
    )
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(run.label)}</th>'
        + "".join(f"<td>{html.escape(values[place]) or ABSENT}</td>" for _, values in columns)
        + "</tr>"
        for place, run in enumerate(runs)
    )
    is_open = " open" if len(columns) <= 6 and len(runs) <= SETTINGS_OPEN else ""
    return (
        f"<details{is_open}><summary>Settings that differ ({len(columns)})</summary>"
        '<div class="scroll"><table class="settings"><thead><tr><th scope="col">run</th>'
        f"{head}</tr></thead><tbody>\n{body}\n</tbody></table></div></details>"
    )


def _origins(runs: Sequence[Run]) -> str:
    """The folder of each run, and how to repeat it."""
    items = []
    for run in runs:
        commit = run.text("git", "commit")[:10]
        dirty = " with uncommitted changes" if lookup(run.record, "git", "dirty") else ""
        facts = [
            run.text("started"),
            run.text("machine", "gpu") or run.text("machine", "cpu"),
            f"seed {run.number('seed'):.0f}" if run.number("seed") is not None else "",
            f"commit {commit}{dirty}" if commit else "",
            f"torch {run.text('versions', 'torch')}" if run.text("versions", "torch") else "",
        ]
        items.append(
            f"<dt>{html.escape(run.label)}</dt><dd><code>{html.escape(run.text('command'))}</code><br>"
            f"{html.escape(str(run.folder))}<br>"
            f"<small>{html.escape(' · '.join(fact for fact in facts if fact))}</small></dd>"
        )
    title = "Folders, commands and versions of the runs"
    return f"<details><summary>{title}</summary><dl>{''.join(items)}</dl></details>"


def _problems(problems: Sequence[Problem]) -> str:
    if not problems:
        return ""
    items = "".join(
        f"<li><b>{html.escape(str(problem.folder))}</b>: {html.escape(problem.reason)}</li>"
        for problem in problems
    )
    return f'<section class="failures"><h2>Runs that could not be read</h2><ul>{items}</ul></section>'
